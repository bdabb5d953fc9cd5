"""`fishlens cite`: what to cite, as BibTeX."""

import typer

from fishlens import __version__

PAPER = """@inproceedings{liu-etal-2024-fun,
    title = "{FUN} with {F}isher: Improving Generalization of Adapter-Based Cross-lingual Transfer with Scheduled Unfreezing",
    author = "Liu, Chen Cecilia and Pfeiffer, Jonas and Vuli{\\'c}, Ivan and Gurevych, Iryna",
    booktitle = "Proceedings of the 2024 Conference of the North American Chapter of the Association for Computational Linguistics: Human Language Technologies (Volume 1: Long Papers)",
    editor = "Duh, Kevin and Gomez, Helena and Bethard, Steven",
    month = jun,
    year = "2024",
    address = "Mexico City, Mexico",
    publisher = "Association for Computational Linguistics",
    url = "https://aclanthology.org/2024.naacl-long.111",
    pages = "1998--2015",
}"""  # noqa: E501 (entries have one field a line)
SOFTWARE = f"""@software{{fishlens,
    title = "fishlens: the {{F}}isher information of every block while adapters train",
    author = "{{The fishlens authors}}",
    version = "{__version__}",
    year = "2026",
    note = "Apache-2.0",
}}"""


def cite() -> None:
    """Print what to cite, as BibTeX: the paper whose method this is, and this software."""
    typer.echo(f"{PAPER}\n\n{SOFTWARE}")
