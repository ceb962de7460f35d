"""Modules with debug information, as a compiler makes them."""

import subprocess

from harness.images.helper import compiler


def build(folder, sources):
    """A relocatable file of these sources, by their paths: its bytes."""
    objects = []
    for name, text in sources.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        objects.append(name.replace("/", "-") + ".o")
        gcc = [compiler(), "-O2", "-gdwarf-5", "-fno-pic", "-c", name, "-o", objects[-1]]
        subprocess.run(gcc, cwd=folder, check=True)
    link = [compiler(), "-r", "-nostdlib", *objects, "-o", "module.ko", "-Wl,--build-id"]
    subprocess.run(link, cwd=folder, check=True)
    return (folder / "module.ko").read_bytes()
