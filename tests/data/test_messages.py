"""Message catalogues: read, cleaned, and parted so that no string is in two parts."""

from __future__ import annotations

import gettext
import hashlib
import io
import struct
from pathlib import Path

import numpy as np
import pytest

from longlag.data import messages
from longlag.data.debian import Package
from longlag.data.messages import Messages, Source, load, split, tidy
from tests.data.test_debian import deb


def catalogue(pairs: dict[str, str]) -> bytes:
    """A .mo file: its head, a table of lengths and places for each side, and the texts."""
    pairs = {
        "": "Content-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=2; plural=n>1;\n"
    } | pairs
    sides = [[text.encode() + b"\0" for text in side] for side in (pairs, pairs.values())]
    at, tables = 28 + 16 * len(pairs), b""
    for side in sides:
        for text in side:
            tables += struct.pack("<II", len(text) - 1, at)
            at += len(text)
    head = struct.pack("<7I", 0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, at)
    return head + tables + b"".join(b"".join(side) for side in sides)


MENU = {
    "_Save the image": "_Enregistrer l’image",
    "menu\x04Print && fold &Paper": "Imprimer && plier le &papier",
    "%d wrong values": "%d valeurs fausses",
    "Wrong <b>bold</b> text": "Texte <b>gras</b> faux",
    "Two lines\nof text": "Deux lignes\nde texte",
    "Too short": "Trop court",
    " ".join(["long"] * 16): "trop long",
    "One file here\0Many files here": "Un fichier ici\0Des fichiers ici",
    "One page <here>\0All pages here": "Une page <ici>\0Toutes les pages",
    "Copy this page\0Copy these pages": "Copier <la> page\0Copier les pages",
    "Please wait now…": "Attendez maintenant…",
}
COMPILER = {"invalid name __size_of": "nom __size_of invalide", "Save the image": "autre chose"}


def package(name: str, *files: tuple[str, bytes]) -> tuple[Package, bytes]:
    content = deb({f"./usr/share/locale/{path}": text for path, text in files})
    return Package(name, "1", len(content), hashlib.sha256(content).hexdigest(), "none"), content


@pytest.fixture
def fake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[tuple[Source, ...], tuple[Path, ...]]:
    """Two packages; the first has the menu, the second the compiler, and German too."""
    monkeypatch.setenv("LONGLAG_DATA", str(tmp_path / "cache"))
    made = [
        package("menu", ("fr/LC_MESSAGES/menu.mo", catalogue(MENU))),
        package(
            "compiler",
            ("fr/LC_MESSAGES/c.mo", catalogue(COMPILER)),
            ("de/LC_MESSAGES/c.mo", catalogue({})),
        ),
    ]
    sources, paths = [], []
    for (known, content), accelerators in zip(made, (True, False), strict=True):
        paths.append(tmp_path / known.file)
        paths[-1].write_bytes(content)
        sources.append(Source(known, accelerators))
    return tuple(sources), tuple(paths)


def test_the_catalogue_of_the_test_is_one():
    assert gettext.GNUTranslations(io.BytesIO(catalogue(MENU))).gettext("Too short") == "Trop court"


def test_messages_are_cleaned_and_each_source_is_there_once(fake):
    sources, paths = fake
    found = load("fr", sources, paths)
    assert dict(zip(found.sources, found.targets)) == {
        "Save the image": "Enregistrer l'image",
        "Print && fold Paper": "Imprimer && plier le papier",
        "One file here": "Un fichier ici",
        "Please wait now...": "Attendez maintenant...",
        "invalid name __size_of": "nom __size_of invalide",
    }
    assert found.names == ("menu", "compiler")
    assert [found.names[i] for i in found.packages] == ["menu"] * 4 + ["compiler"]
    assert found.keys[found.sources.index("Please wait now...")] == "please wait now"
    for path in paths:
        path.unlink()
    assert load.__wrapped__("fr", sources).sources == found.sources, (
        "what was unpacked is found in the cache"
    )


def test_what_is_not_there_or_damaged_is_refused(fake, tmp_path: Path):
    sources, paths = fake
    with pytest.raises(ValueError, match=r"language: expected one of fr; got 'fra'.*'fr'"):
        load("fra", sources, paths)
    with pytest.raises(ValueError, match="expected 2 paths, one a package; got 1"):
        load("fr", sources, paths[:1])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="menu: expected catalogues in"):
        load("fr", sources, (tmp_path / "empty", paths[1]))
    paths[0].write_bytes(paths[0].read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"menu: expected version 1, .* got menu_1_all.deb"):
        load("fr", (Source(sources[0].package, True),), paths[:1])
    folder = tmp_path / "locale" / "fr" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    for damaged in (b"no catalogue at all, but long enough", catalogue(MENU)[:90], b"ab"):
        (folder / "menu.mo").write_bytes(damaged)
        with pytest.raises(ValueError, match="expected a gettext catalogue"):
            load.__wrapped__("fr", sources[:1], (tmp_path,))


def test_no_string_is_in_two_parts():
    texts = tuple(f"{word} number {i}" for i in range(400) for word in ("Open", "open,"))
    # The last package has twenty strings that the first has too.
    keys = [f"open number {i // 2}" for i in range(800)]
    keys[400:420] = keys[:20]
    made = Messages(texts, texts, tuple(keys), np.arange(800) // 400, ("a", "b"))
    for by in ("string", "package"):
        parts = split(made, by)
        each = [{keys[i] for i in part} for part in (parts.train, parts.validation, parts.test)]
        assert all(each) and not (each[0] & each[1] or each[0] & each[2] or each[1] & each[2])
        if by == "string":
            assert len(parts.train) + len(parts.validation) + len(parts.test) == 800
            assert 0.07 < len(parts.test) / 800 < 0.14 and 0.02 < len(parts.validation) / 800 < 0.08
        else:
            assert [*parts.test] == [*range(420, 800)]
            assert (made.packages[np.append(parts.train, parts.validation)] == 0).all()
    with pytest.raises(ValueError, match="split: expected one of string, package"):
        split(made, "packages")  # type: ignore[arg-type]


def test_text_has_one_form():
    assert tidy(" a\u00a0b …  l’œil ") == "a b ... l'œil"
    assert tidy("E_xit a__b R&D &Go", accelerators=True) == "Exit a_b R&D Go"
    assert tidy("a_b &c") == "a_b &c"


def test_the_real_packages_have_what_is_said_of_them():
    found = load()
    assert [*np.bincount(found.packages)] == [5201, 3773, 2427]
    assert len({*found.sources}) == len(found.sources) == 11_401
    pairs = dict(zip(found.sources, found.targets))
    assert pairs["Convert the image to grayscale"] == "Convertit l'image en niveaux de gris"
    assert not any(set("%{<\n") & set(a + b) for a, b in pairs.items())
    assert {len(source.split()) for source in pairs} == set(range(3, 16))
    parts = split(found)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (9694, 589, 1118)
    assert [source.package.name for source in messages.SOURCES] == [*found.names]
