"""Attacks that measure what models and messages tell of the rows that they were made of.

tap            what each party sees of one client, in a simulation or a recorded run
closed_forms   rows from gradients of linear models and first layers, exactly or by their likelihood
inversion      rows from gradients and updates of any network, by descent
membership     whether a row was trained on
attributes     a column that a row keeps to itself
"""

from hanse.leakage.attributes import AttributeInference, impute, infer_attribute
from hanse.leakage.closed_forms import (
    NotMeasured,
    Prior,
    Recovered,
    find_likeliest_row,
    read_label,
    read_row,
    read_row_of_class,
)
from hanse.leakage.inversion import Inversion, Scores, invert, recognise_model
from hanse.leakage.membership import (
    Membership,
    bound_share,
    compare_shadows,
    measure_confidence,
    measure_membership,
)
from hanse.leakage.quality import match_rows, measure_psnr, measure_ssim
from hanse.leakage.tap import (
    Observer,
    Overheard,
    Sight,
    ask_client,
    ask_for_parts,
    observe,
    read_recorded_plan,
    read_recording,
    subtract_own,
)

__all__ = [
    "AttributeInference",
    "Inversion",
    "Membership",
    "NotMeasured",
    "Observer",
    "Overheard",
    "Prior",
    "Recovered",
    "Scores",
    "Sight",
    "ask_client",
    "ask_for_parts",
    "bound_share",
    "compare_shadows",
    "find_likeliest_row",
    "impute",
    "infer_attribute",
    "invert",
    "match_rows",
    "measure_confidence",
    "measure_membership",
    "measure_psnr",
    "measure_ssim",
    "observe",
    "read_label",
    "read_recorded_plan",
    "read_recording",
    "read_row",
    "read_row_of_class",
    "recognise_model",
    "subtract_own",
]
