"""Token ids: known and unknown words, pieces of words, and the file that keeps them."""

import json

import numpy as np
import pytest

import jaxmetric as jm

WORDS = ("a", "cat", "n't", "does", "'s", ".", "sat")


def vocabulary(**options):
    return jm.data.word_vocabulary(["A cat sat."], WORDS, **options)


def test_words_are_split_as_the_vectors_have_them():
    ids = vocabulary(max_length=8).ids_of(["does", "n't", "cat", "'s", "."])
    assert (ids > 1).all()
    longer = jm.data.word_vocabulary(["a a a a a a a a"], WORDS)
    row = longer.encode(["Doesn’t cat's."])[0]
    assert row.tolist() == [*ids.tolist(), 0, 0, 0]


def test_capital_letters_stay_where_a_word_has_one():
    found = jm.data.word_vocabulary(["US us"], ["US", "us"], num_unknown=0)
    assert found.encode(["US us"]).tolist() == [[2, 3]]


def test_an_unknown_word_has_an_id_of_its_own_by_its_letters():
    found = vocabulary(num_unknown=1000)
    ids = found.encode(["dog bird Dog", "bird é 猫"])
    assert (ids[0][:3] >= found.num_known).all()
    assert (ids < found.num_tokens).all()
    assert ids[0][0] == ids[0][2] != ids[0][1]
    assert ids[0][1] == ids[1][0]
    assert vocabulary(num_unknown=0).encode(["dog bird"])[0][:2].tolist() == [1, 1]


def test_rows_are_as_long_as_the_longest_training_text_up_to_a_bound():
    assert vocabulary().length == 4
    assert vocabulary(max_length=2).encode(["a cat sat ."]).shape == (1, 2)
    assert jm.data.word_vocabulary([""], WORDS).encode(["", "a"]).tolist() == [[0], [2]]
    assert vocabulary().encode([]).shape == (0, 4)


def test_of_many_words_those_of_the_texts_are_kept():
    words = [f"w{k}" for k in range(50)]
    found = jm.data.word_vocabulary(["w40 w7"], words, max_words=5)
    assert found.ids_of(["w7", "w40", "w0", "w1", "w2", "w3"]).tolist() == [
        *(2, 3, 4, 5, 6, 0)
    ]


def test_pieces_of_words_are_the_same_every_time_and_spell_new_words():
    texts = ["low lower lowest", "new newer newest", "wide wider widest"] * 3
    first, second = (jm.data.subword_vocabulary(texts, size=60) for _ in range(2))
    assert first.to_json() == second.to_json()
    ids = first.encode(["Lowest newest", "widelow", "ξ"])
    assert (ids[:2] != 1).all()
    assert ids[2, 0] == 1
    assert first.num_tokens <= 60


def test_the_file_gives_the_same_ids(tmp_path):
    for made in (vocabulary(), jm.data.subword_vocabulary(["a cat sat", "é"])):
        path = tmp_path / "vocabulary.json"
        path.write_text(made.to_json(), encoding="utf-8")
        again = jm.data.load_vocabulary(path)
        texts = ["A cat, sat.", "dog"]
        assert (again.encode(texts) == made.encode(texts)).all()
        assert again.num_tokens == made.num_tokens


@pytest.mark.parametrize("change", ["cut", "format", "tokenizer", "length", "bytes"])
def test_a_damaged_file_is_told_in_one_line(tmp_path, change):
    path, content = tmp_path / "v.json", json.loads(vocabulary().to_json())
    if change == "format":
        content["format"] = 2
    elif change == "tokenizer":
        content["tokenizer"] = {"model": 1}
    elif change == "length":
        content["length"] = "four"
    text = json.dumps(content)
    path.write_bytes(b"\xff" if change == "bytes" else text.encode())
    if change == "cut":
        path.write_text(text[:-5])
    with pytest.raises(jm.data.DataError, match="is no vocabulary") as caught:
        jm.data.load_vocabulary(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(jm.data.DataError, match="no such file"):
        jm.data.load_vocabulary(tmp_path / "none.json")


def test_rarity_counts_texts_and_not_tokens():
    ids = np.array([[2, 2, 0], [2, 3, 0], [4, 0, 0]], np.int32)
    found = jm.data.inverse_frequencies(ids, 6)
    want = [0, *(np.log(4 / (1 + n)) + 1 for n in (0, 2, 1, 1, 0))]
    np.testing.assert_allclose(found, want, rtol=1e-6)
