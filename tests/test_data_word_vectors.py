"""Word vectors: the file, and the table that an encoder starts from."""

import numpy as np
import pytest

import jaxmetric as jm


def saved(folder, **arrays):
    path = folder / "vectors.npz"
    np.savez(path, allow_pickle=True, **arrays)
    return path


def test_words_and_vectors_are_read_and_of_equal_words_the_first(tmp_path):
    path = saved(tmp_path, words=["a", "b", "a"], vectors=np.arange(6).reshape(3, 2))
    words, vectors = jm.data.load_word_vectors(path)
    assert words == ("a", "b")
    assert vectors.tolist() == [[0, 1], [2, 3]]
    assert vectors.dtype == np.float32


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"words": ["a"]}, "holds no `vectors`"),
        ({"vectors": np.eye(2)}, "holds no `words`"),
        ({"words": [1, 2], "vectors": np.eye(2)}, "`words` must be .n. strings"),
        ({"words": [["a", "b"]], "vectors": np.eye(2)}, "`words` must be .n. strings"),
        ({"words": ["a", "b"], "vectors": np.ones(2)}, "`vectors` must be .n, dim."),
        ({"words": ["a", "b"], "vectors": np.eye(3)}, "does not fit `words`"),
        ({"words": ["a", "b"], "vectors": np.ones((2, 0))}, "does not fit `words`"),
        ({"words": ["a", "b"], "vectors": [[1, np.nan], [1, 1]]}, "row 0 is not"),
        ({"words": np.array(["a"], object), "vectors": np.eye(1)}, "Python objects"),
        ({"words": ["a"], "vectors": [["x"]]}, "`vectors` must be .n, dim. numbers"),
    ],
)
def test_wrong_arrays_are_told_in_one_line(tmp_path, arrays, reason):
    with pytest.raises(jm.data.DataError, match=reason) as caught:
        jm.data.load_word_vectors(saved(tmp_path, **arrays))
    assert "\n" not in str(caught.value)


def test_what_is_no_archive_is_told(tmp_path):
    path = tmp_path / "v.npz"
    path.write_text("a 1 2")
    with pytest.raises(jm.data.DataError, match="cannot be read as an .npz file"):
        jm.data.load_word_vectors(path)
    with pytest.raises(jm.data.DataError, match="no such file"):
        jm.data.load_word_vectors(tmp_path / "none.npz")


def test_a_table_starts_with_centred_vectors_of_length_one():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4, 3)).astype(np.float32) + 5
    words = jm.data.WordVectors(tuple("abcd"), vectors)
    vocabulary = jm.data.word_vocabulary(["a"], words.words, num_unknown=50)
    table = jm.data.vector_table(vocabulary, words, width=200, seed=1)
    assert table.shape == (vocabulary.num_tokens, 200)
    assert not table[0].any()
    known = table[vocabulary.ids_of("abcd"), :3]
    centred = vectors - vectors.mean(0)
    want = centred / np.linalg.norm(centred, axis=1).mean()
    np.testing.assert_allclose(known, want, rtol=1e-5)
    # The columns that tell equal words apart: of length 1.5, and nearly orthogonal.
    rest = table[1:, 3:]
    np.testing.assert_allclose(np.linalg.norm(rest, axis=1), 1.5, atol=0.35)
    cosines = rest @ rest.T / 1.5**2
    assert np.abs(cosines - np.diag(np.diag(cosines))).max() < 0.4
    again = jm.data.vector_table(vocabulary, words, width=200, seed=1)
    assert (again == table).all()


def test_a_table_narrower_than_its_vectors_is_refused():
    words = jm.data.WordVectors(("a",), np.ones((1, 3), np.float32))
    vocabulary = jm.data.word_vocabulary(["a"], words.words)
    with pytest.raises(ValueError, match="`width` must be at least 3"):
        jm.data.vector_table(vocabulary, words, width=2)
