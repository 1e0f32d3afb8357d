"""Files of three hospitals as they are exported: made of draws from a seed, and of nobody's data."""

import csv
from pathlib import Path
from random import Random

HEADS = ("case", "age", "sex", "CRP", "admitted", "smoker", "outcome")
NUM_ROWS = {"north": 260, "south": 180, "west": 150}


def write_files(folder: Path) -> None:
    """Writes north.csv, south.csv and west.csv, and new.csv, which is written like the first."""
    german = {"point": ",", "day": "{d:02}.{m:02}.{y}", "gap": "k.A."}
    english = {"point": ".", "day": "{y}-{m:02}-{d:02}", "gap": "NA"}
    _write(folder / "north.csv", _rows("N", german), "cp1252", ";")
    south = [[*row, "AB"[i % 2]] for i, row in enumerate(_rows("S", english))]
    _write(folder / "south.csv", south, "utf-8-sig", ",", (*HEADS, "ward"))
    west = [row for row in _rows("W", {**german, "gap": ""}) if row[-1] != "died"]  # nobody has died there
    _write(folder / "west.csv", west, "utf-16", "\t")
    _write(folder / "new.csv", [row[:-1] for row in _rows("X", german)[:40]], "cp1252", ";", HEADS[:-1])


def _rows(house: str, form: dict[str, str]) -> list[list[str]]:
    draws = Random(f"consortium {house}")
    found = []
    for number in range(NUM_ROWS.get({"N": "north", "S": "south", "W": "west"}.get(house, ""), 100)):
        age, crp = draws.randint(25, 95), draws.uniform(1, 80)
        ill = age / 20 + crp / 25 + draws.gauss(0, 0.5)
        day = form["day"].format(d=draws.randint(1, 28), m=draws.randint(1, 12), y=draws.randint(2021, 2023))
        found.append(
            [
                f"{house}-{1000 + number}",
                form["gap"] if draws.random() < 0.05 else str(age),
                draws.choice(("männlich", "weiblich")),
                "<5" if crp < 5 else f"{crp:.1f}".replace(".", form["point"]),
                day,
                draws.choice(("ja", "nein", form["gap"])),
                "died" if ill > 5.2 else "moved" if ill > 4.2 else "well",
            ]
        )
    return found


def _write(
    path: Path, rows: list[list[str]], encoding: str, delimiter: str, heads: tuple[str, ...] = HEADS
) -> None:
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([heads, *rows])
