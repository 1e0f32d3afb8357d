"""Encryption: sums of messages that nobody but a key holder can decrypt, and it decrypts sums alone.

bfv        the encryption of integers, with safe parameters
evidence   the code by which the key holder sees that it was sent a sum
reducers   encrypted_sum, encrypted_mean
"""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.privacy.encryption.bfv import bfv, load_tenseal
    from hanse.privacy.encryption.reducers import KEY_HOLDER, encrypted_mean, encrypted_sum
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.privacy.encryption.bfv": ("bfv", "load_tenseal"),
            "hanse.privacy.encryption.reducers": ("KEY_HOLDER", "encrypted_mean", "encrypted_sum"),
        },
        registers={
            "hanse.privacy.encryption.messages": ("add_residues",),
            "hanse.privacy.encryption.reducers": ("SumTerms", "make_keys", "encrypt_pending", "decrypt_sum"),
        },
    )

__all__ = ["KEY_HOLDER", "bfv", "encrypted_mean", "encrypted_sum", "load_tenseal"]
