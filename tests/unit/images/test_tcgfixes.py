from __future__ import annotations

import pytest

from harness.images.modules import Module
from harness.images.tcgfixes import fixed_for_tcg
from support.kernel_files import module_with_code

FUNCTION = "svm_check_emulate_instruction"
BEFORE = bytes.fromhex("f30f1efa 488b97e8190000 31c0")
AFTER = bytes.fromhex("740a 83e640 f7de 19c0 83e007 c3")
TYPE_BYTE = bytes.fromhex("f68289000000 07")
VALID_BYTE = bytes.fromhex("f6828b000000 80")
TYPE_WORD = bytes.fromhex("f78088000000 00070000")
VALID_WORD = bytes.fromhex("f78088000000 00000080")


def kvm_amd(code: bytes, function: str = FUNCTION, signature: bytes = b"") -> Module:
    """A module of that function, after one that has the same instruction by chance."""
    content = module_with_code("kvm-amd", {"svm_other": TYPE_BYTE, function: code})
    return Module("kvm_amd", content + signature)


@pytest.mark.parametrize(
    ("asked", "instead"), [(TYPE_BYTE, VALID_BYTE), (TYPE_WORD, VALID_WORD)], ids=["byte", "word"]
)
def test_fix_asks_the_valid_bit_instead_of_the_type_in_that_function_only(
    asked: bytes, instead: bytes
) -> None:
    module = kvm_amd(BEFORE + asked + AFTER)

    fixed = fixed_for_tcg(module)

    assert fixed == (kvm_amd(BEFORE + instead + AFTER), ("svm-stale-exitintinfo",))


@pytest.mark.parametrize(
    "module",
    [
        kvm_amd(BEFORE + AFTER),
        kvm_amd(BEFORE + VALID_BYTE + AFTER),
        kvm_amd(BEFORE + TYPE_BYTE + AFTER, function="svm_inject_nmi"),
        Module("kvm", kvm_amd(BEFORE + TYPE_BYTE + AFTER).content),
    ],
    ids=["older", "mended", "other function", "other module"],
)
def test_fix_of_a_module_without_that_code_is_none(module: Module) -> None:
    assert fixed_for_tcg(module) is None


def test_fix_where_the_instruction_is_not_the_only_one_is_none() -> None:
    assert fixed_for_tcg(kvm_amd(TYPE_BYTE + BEFORE + TYPE_BYTE)) is None


def test_fixed_module_has_no_signature() -> None:
    signature = b"PKCS#7" + bytes(8) + (6).to_bytes(4, "big") + b"~Module signature appended~\n"

    fixed = fixed_for_tcg(kvm_amd(BEFORE + TYPE_BYTE + AFTER, signature=signature))

    assert fixed is not None
    assert fixed[0] == kvm_amd(BEFORE + VALID_BYTE + AFTER)
