"""What of KVM's interrupt controllers runs reached, in lines and functions of its source."""
