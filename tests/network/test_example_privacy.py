"""Privacy of examples where it is served: each client's own noise, book and refusal."""

from pathlib import Path

from federation import NUM_CLIENTS, federation, job, population, read_memory

from hanse.algorithms import fed_avg, sgd, uniform
from hanse.privacy import ExampleBook, examples
from hanse.runs.protection import private_training

BUDGET = examples(epsilon=4.0, delta=1e-4)
TRAINING = sgd(0.5, batch_size=100, epochs=1)


def test_served_clients_keep_books_and_decline_what_would_pass(tmp_path: Path) -> None:
    """The server asks for three rounds of a budget that was made for two."""
    algorithm = fed_avg(
        fraction=1.0, client=private_training(TRAINING, BUDGET, rounds=2), weighting=uniform()
    )
    with federation(tmp_path) as here:
        run = here.lead(job(algorithm, 3))
        here.enter()
        here.ended(run)
        counted = [one.usage.counted for one in here.server.runs.records(run) if one.round]
        logs = "".join(path.read_text() for path in tmp_path.rglob("*.log"))
        books = [
            ExampleBook.find(read_memory(tmp_path / f"client-{number}", run)[0])
            for number in range(NUM_CLIENTS)
        ]
    assert counted == [NUM_CLIENTS, NUM_CLIENTS, 0]
    assert "budget of privacy is spent: epsilon of its examples is 3." in logs
    for number, book in enumerate(books):
        noised = BUDGET.choose_steps(len(population().client(number)), TRAINING.steps(0), 2)
        assert book.steps == ((noised.rate, noised.noise_multiplier, 2 * noised.num_steps),)
