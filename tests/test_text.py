"""Normalisers and tokenizers: known right answers, round trips, and one clear line for what cannot be done."""

import json
import threading
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_lab.build import build_data, make
from asr_lab.data.corpus import Corpus
from asr_lab.errors import ConfigError, DataError
from asr_lab.metrics.wer import utterance_errors
from asr_lab.sweep.cell import resolved
from asr_lab.text import subwords
from asr_lab.text.normalize import basic, english, mandarin, untouched
from asr_lab.text.phones import PhoneTokenizer, phone_tokenizer, read_lexicon
from asr_lab.text.subwords import SubwordTokenizer, subword_tokenizer
from asr_lab.text.words import word_tokenizer

from .conftest import composed, tiny

# --- normalisers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("  Hello,   WORLD! ", "hello world"),
        ("Don’t stop -- it's five O'Clock", "don't stop it's five o'clock"),
        ("the dogs' 'tis; rock 'n' roll", "the dogs tis rock n roll"),
        ("Café naïve Ærø Straße ﬁne İstanbul Łódź", "cafe naive aero strasse fine istanbul lodz"),
        ("well-known U.S. and/or AT&T", "well known u s and or at and t"),
        ("23 apples, 105 pears.", "twenty three apples one hundred and five pears"),
        ("(1,234)", "one thousand two hundred and thirty four"),
        ("3.10 or .5 or 0.25", "three point one zero or point five or zero point two five"),
        ("the 21st, 2nd and 1,000th", "the twenty first second and one thousandth"),
        ("50% of 007", "fifty percent of zero zero seven"),
        ("in 1984, 1905 and 2013", "in nineteen eighty four nineteen oh five and twenty thirteen"),
        ("１２ 0", "twelve zero"),
        # No sure reading: left as written, for the tokenizer to refuse.
        ("$5 10:30 3-4 1/2 mp3 1990s -5 5² ½ 1th 1,23 7's", "$5 10:30 3-4 1/2 mp3 1990s -5 5² ½ 1th 1,23 7's"),
        ("a@b #tag 1234567890123456 ™", "a@b #tag 1234567890123456 ™"),
        ("zero\u200bwidth\xa0space", "zerowidth space"),
        ("...", ""),
    ],
)  # fmt: skip
def test_english(text, want):
    assert english(text, years=True) == want


def test_years_are_a_choice():
    assert english("in 1984", years=False) == "in one thousand nine hundred and eighty four"
    assert english("1984% 1,984", years=True).startswith(
        "one thousand nine hundred and eighty four percent one thousand"
    )


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("“你好”，他 说：‘再见’！", "你好他说再见"),
        ("我　用 ｉＰｈｏｎｅ １５ 打 电话 。", "我用iphone 15打电话"),
        ("don't stop 吧 hello,world", "don't stop吧hello world"),
        ("说'你好'～ 3.5公里 10:30 ５０％", "说你好3.5公里10:30 50%"),
        ("《三国》、〇", "三国〇"),
    ],
)
def test_mandarin(text, want):
    assert mandarin(text) == want


def test_none_leaves_the_text():
    assert untouched("\n  Ab,  c ") == "Ab,  c"


def in_english(text: str) -> str:
    return english(text, years=True)


# Letters, marks and signs at which one step could undo or repeat another, beside anything at all.
AWKWARD = st.text(st.sampled_from("aB5 0.,'’-%&$~—()\"“，。我 们İŉßﬁ²½é\u0301\u0345\u200bΣ1st"), max_size=12)


@pytest.mark.parametrize("normalise", [untouched, basic, in_english, mandarin], ids=lambda f: f.__name__)
@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=20) | AWKWARD)
def test_normalisers_are_total_and_idempotent(normalise, text):
    once = normalise(text)
    assert normalise(once) == once
    assert once == once.strip()


# --- subwords ----------------------------------------------------------------------------------------------------

TEXTS = ["one two three", "two three", "four nine one", "seven seven", "three seven two"] * 4


@pytest.fixture(params=["bpe", "unigram"])
def model_type(request):
    return request.param


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ASR_LAB_CACHE", str(tmp_path / "cache"))


def counted_training(monkeypatch) -> list:
    """Grows by one for each training of a sentencepiece model."""
    calls, real = [], subwords._train
    monkeypatch.setattr(subwords, "_train", lambda *a: (calls.append(1), real(*a))[1])
    return calls


@cache
def of_both_kinds() -> list[SubwordTokenizer]:
    return [SubwordTokenizer(subwords._train(sorted(TEXTS), kind, 17, 1.0)) for kind in ("bpe", "unigram")]


@settings(max_examples=60, deadline=None)
@given(st.text(" efhinorstuvw", max_size=12))
def test_subwords_lose_nothing(text):
    for tokenizer in of_both_kinds():
        labels = tokenizer.encode(text)
        assert tokenizer.decode(labels) == text
        assert all(0 <= label < len(tokenizer) for label in labels)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6), min_size=1, max_size=5)
)
def test_subwords_of_any_script_lose_nothing(texts):
    known = [t for t in texts if not set(t) & set("\0\n▁▅")]
    n_chars = len({c for t in known for c in t} | ({" "} if any(" " in t for t in known) else set()))
    if known:
        tokenizer = SubwordTokenizer(subwords._train(sorted(known), "bpe", n_chars, 1.0))
        for text in known:
            assert tokenizer.unknown(text) == []
            assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_word_has_the_same_label_everywhere(model_type):
    tokenizer = subword_tokenizer(TEXTS, model_type, 17, 1.0)
    first, second = tokenizer.encode("two"), tokenizer.encode("two two")
    assert second == first + first


def test_script_without_spaces_gets_no_label_for_them(model_type):
    tokenizer = subword_tokenizer(["你好吗", "你好", "我好"], model_type, 4, 1.0)
    assert sorted(tokenizer.symbols) == sorted("你好吗我")
    assert tokenizer.decode(tokenizer.encode("我好吗")) == "我好吗"
    assert tokenizer.unknown("我 好") == [" "]


def test_no_special_label_and_unknown_characters_are_named(model_type):
    tokenizer = subword_tokenizer(TEXTS, model_type, 17, 1.0)
    assert len(tokenizer) == len(tokenizer.symbols) == 17
    assert not {"<unk>", "<s>", "</s>", "<pad>"} & set(tokenizer.symbols)
    assert tokenizer.unknown("one zebra\n▁\ud800") == ["\n", "a", "b", "z", "▁", "\ud800"]
    with pytest.raises(DataError, match=r"'zebra' has characters outside the tokenizer: \['a', 'b', 'z'\]"):
        tokenizer.encode("zebra")


def test_impossible_vocabulary_says_what_is_possible(model_type):
    with pytest.raises(
        ConfigError, match=r"n_labels=5000: .*at most (\d+); set tokenizer.n_labels=\1 or less"
    ) as error:
        subword_tokenizer(TEXTS, model_type, 5000, 1.0)
    most = int(str(error.value).split("at most ")[1].split(";")[0])
    assert len(subword_tokenizer(TEXTS, model_type, most, 1.0)) == most
    with pytest.raises(ConfigError, match=f"at most {most};"):
        subword_tokenizer(TEXTS, model_type, most + 1, 1.0)
    with pytest.raises(ConfigError, match=r"n_labels=3: .*13 different characters.*set tokenizer.n_labels=13 or more"):
        subword_tokenizer(TEXTS, model_type, 3, 1.0)
    assert len(subword_tokenizer(TEXTS, model_type, 13, 1.0)) == 13


@pytest.mark.parametrize(
    ("texts", "values", "says"),
    [
        (TEXTS, ("word", 20, 1.0), "model_type=word; choose from: bpe, unigram"),
        (TEXTS, ("bpe", 0, 1.0), "n_labels is a count of labels, 0 came"),
        (TEXTS, ("bpe", 20, 0.5), r"character_coverage is a share in \[0.98, 1\], 0.5 came"),
        (["", "▁", "\ud800"], ("bpe", 20, 1.0), "hold no text to learn from"),
    ],
)
def test_wrong_values_of_subwords(texts, values, says):
    with pytest.raises(ValueError, match=says):
        subword_tokenizer(texts, *values)


def test_coverage_leaves_rare_characters_to_the_check():
    texts = ["ab ba" * 40] * 5 + ["abq"]
    assert subword_tokenizer(texts, "bpe", 5, 1.0).unknown("abq") == []
    assert subword_tokenizer(texts, "bpe", 5, 0.99).unknown("abq") == ["q"]


def test_the_cache_is_used_and_order_does_not_matter(model_type, monkeypatch):
    trainings = counted_training(monkeypatch)
    first = subword_tokenizer(TEXTS, model_type, 17, 1.0)
    again = subword_tokenizer(reversed(TEXTS), model_type, 17, 1.0)
    assert first.symbols == again.symbols
    assert len(trainings) == 1
    subword_tokenizer([*TEXTS, "four"], model_type, 17, 1.0)  # other texts, another value: other models
    subword_tokenizer(TEXTS, model_type, 16, 1.0)
    assert len(trainings) == 3


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "folder"])
def test_a_damaged_cache_file_is_trained_again(damage, monkeypatch, tmp_path):
    trainings = counted_training(monkeypatch)
    want = subword_tokenizer(TEXTS, "bpe", 17, 1.0).symbols
    [file] = (tmp_path / "cache" / "tokenizers").iterdir()
    content = file.read_bytes()
    middle = len(content) // 2
    file.unlink() if damage == "folder" else None
    match damage:
        case "flip":
            file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        case "cut":
            file.write_bytes(content[:-1])
        case "empty":
            file.write_bytes(b"")
        case "folder":
            file.mkdir()
    assert subword_tokenizer(TEXTS, "bpe", 17, 1.0).symbols == want
    assert len(trainings) == 2
    if damage != "folder":
        assert file.read_bytes() == content  # mended: trained the same, byte for byte


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ASR_LAB_CACHE", str(tmp_path / "file"))
    assert len(subword_tokenizer(TEXTS, "bpe", 17, 1.0)) == 17
    assert "will be trained again next time" in caplog.text


def test_several_at_once_leave_one_whole_file(tmp_path):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(subword_tokenizer(TEXTS, "bpe", 17, 1.0).symbols))
        for _ in range(6)
    ]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(found) == 6 and all(symbols == found[0] for symbols in found)
    [file] = (tmp_path / "cache" / "tokenizers").iterdir()
    assert subwords._read(file) is not None


def test_only_the_train_split_is_learnt_from(tones, monkeypatch):
    given_texts = []
    real = subwords.subword_tokenizer
    monkeypatch.setattr(
        subwords,
        "subword_tokenizer",
        lambda train_texts, **k: real(given_texts.extend(train_texts) or given_texts, **k),
    )
    config = resolved(composed(*tiny(tones, "tokenizer=bpe", "tokenizer.n_labels=10")))
    # `make` imports by name, so the replaced function is the one that is called.
    data = build_data(config, make(config, "frontend"))
    rows = [json.loads(line) for line in tones.read_text().splitlines()]
    assert Counter(given_texts) == Counter(r["text"] for r in rows if r["split"] == "train")
    assert len(data.tokenizer) == 10


# --- words -------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["one", "two", "don't", "你好"]), min_size=1, max_size=6).map(" ".join))
def test_words_round_trip(text):
    for unknown in ("label", "refuse"):
        tokenizer = word_tokenizer(["one two don't", "你好"], 1, unknown)
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_unknown_words_share_a_label_that_is_always_wrong():
    tokenizer = word_tokenizer(["go left", "go right", "go"], 2, "label")
    assert tokenizer.symbols == ["<unk>", "go"]
    hyp = tokenizer.decode(tokenizer.encode("go left"))
    assert hyp == "go <unk>"
    assert utterance_errors("go left", hyp)["sub"] == 1
    assert tokenizer.unknown("go left") == []
    assert tokenizer.unknown("go <unk>") == ["<unk>"]  # in a reference it would count as right
    assert "<unk>" not in word_tokenizer(["a <unk>"], 1, "label").symbols[1:]


def test_unknown_words_can_be_refused():
    tokenizer = word_tokenizer(["go left"], 1, "refuse")
    assert tokenizer.symbols == ["go", "left"]
    assert tokenizer.unknown("up and left") == ["and", "up"]
    with pytest.raises(DataError, match=r"words outside the tokenizer: \['up'\]"):
        tokenizer.encode("go up")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ((1, "guess"), "unknown=guess; choose from: label, refuse"),
        ((0, "label"), "min_count=0"),
        ((2, "refuse"), "min_count=2 with unknown=refuse"),
        ((9, "label"), "min_count=9: the most frequent training word is there 2 times"),
    ],
)
def test_wrong_values_of_words(values, says):
    with pytest.raises(ConfigError, match=says):
        word_tokenizer(["go left", "go"], *values)


# --- phones ------------------------------------------------------------------------------------------------------

LEXICON = """;;; a comment
TO\tT UW
TO(2) T AH
TWO  T UW
TOO T UW   # and a note

ONE W AH N
WON W AH N
T T IY
"""


@pytest.fixture
def lexicon(tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_text(LEXICON)
    return str(path)


def test_phones_and_back(lexicon):
    tokenizer = phone_tokenizer(["one two", "two one", "one t"], lexicon, lower_case=True)
    assert tokenizer.symbols == ["|", "AH", "IY", "N", "T", "UW", "W"]
    assert [tokenizer.symbols[i] for i in tokenizer.encode("two one")] == ["T", "UW", "|", "W", "AH", "N"]
    assert tokenizer.decode(tokenizer.encode("two one")) == "two one"


def test_of_homophones_the_frequent_one_is_written(lexicon):
    tokenizer = phone_tokenizer(["one won won", "to two two"], lexicon, lower_case=True)
    assert tokenizer.decode(tokenizer.encode("to one")) == "two won"
    none_seen = PhoneTokenizer(read_lexicon(Path(lexicon), lower_case=True), Counter())
    assert none_seen.decode(none_seen.encode("too won")) == "to one"  # the first of the lexicon


def test_variants_are_read_and_no_word_is_one_wrong_word(lexicon):
    tokenizer = phone_tokenizer(["to"], lexicon, lower_case=True)
    label = tokenizer.symbols.index
    assert tokenizer.decode([label("T"), label("AH")]) == "to"
    hyp = tokenizer.decode([0, label("T"), 0, 0, label("T"), label("UW"), 0])
    assert hyp == "/T/ to"
    assert utterance_errors("t to", hyp)["sub"] == 1
    assert tokenizer.decode([]) == ""


WAYS = st.lists(st.sampled_from("PQR"), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text("xyz", min_size=1, max_size=3), WAYS, min_size=1, max_size=6), st.data())
def test_phones_keep_the_pronunciation(ways, data):
    """Words may turn into their homophones, never into anything that sounds different."""
    tokenizer = PhoneTokenizer({w: [tuple(way)] for w, way in ways.items()}, Counter())
    text = data.draw(st.lists(st.sampled_from(sorted(ways)), max_size=5).map(" ".join))
    back = tokenizer.decode(tokenizer.encode(text))
    assert tokenizer.encode(back) == tokenizer.encode(text)
    if len({tuple(w) for w in ways.values()}) == len(ways):
        assert back == text


def test_words_missing_from_the_lexicon_are_counted(lexicon):
    with pytest.raises(
        DataError, match=r"no pronunciation for 2 words .*'six' \(2 utterances\), 'ten' \(1 utterance\); add"
    ):
        phone_tokenizer(["one six six", "six", "ten"], lexicon, lower_case=True)
    tokenizer = phone_tokenizer(["one"], lexicon, lower_case=True)
    assert tokenizer.unknown("one six") == ["six"]
    with pytest.raises(DataError, match=r"outside the lexicon: \['six'\]"):
        tokenizer.encode("six")
    with pytest.raises(DataError, match=r"'one' \(1 utterance\)"):
        phone_tokenizer(["one"], lexicon, lower_case=False)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, r"the lexicon cannot be read \(No such file"),
        (b"\xff\xfea", "it is not UTF-8"),
        (b"", "holds no word"),
        (b"one W AH N\ntwo\n", r"lexicon.txt:2: no phones \('two'\)"),
        (b"one W | N\n", "lexicon.txt:1: '|' is the label between words"),
    ],
)
def test_unusable_lexicon(tmp_path, content, says):
    if content is not None:
        (tmp_path / "lexicon.txt").write_bytes(content)
    with pytest.raises(DataError, match=says.replace("|", r"\|")):
        phone_tokenizer(["one"], str(tmp_path / "lexicon.txt"), lower_case=True)


# --- scoring -----------------------------------------------------------------------------------------------------


def test_characters_of_cer_are_without_spaces():
    row = utterance_errors("我用 iphone", "我 用iphone", score="cer")
    assert (row["char_errors"], row["chars"]) == (0, 8)
    row = utterance_errors("a b", "ab", score="wer")
    assert (row["char_errors"], row["chars"]) == (1, 3)  # as jiwer counts: the space is one
    row = utterance_errors("你好吗", "你们好", score="cer")
    assert (row["char_errors"], row["chars"]) == (2, 3)


def test_space_of_any_kind_is_one_space():
    assert utterance_errors("a\u00a0 b\tc", "a b c")["char_errors"] == 0
    assert utterance_errors("a  b", "a b")["words"] == 2


@pytest.mark.parametrize("choice", ["basic", "english", "mandarin", "none"])
def test_the_corpus_is_normalised_by_the_chosen_one(choice, tones, tmp_path):
    rows = [json.loads(line) for line in tones.read_text().splitlines()]
    rows[0]["text"] = "A,  b 。"
    for row in rows:
        row["audio_filepath"] = str(tones.parent / row["audio_filepath"])
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    config = resolved(composed(*tiny(tmp_path / "m.jsonl", f"data/normalizer={choice}")))
    corpus = make(config, "data")
    assert isinstance(corpus, Corpus)
    want = {"basic": "a, b 。", "english": "a b", "mandarin": "a b", "none": "A,  b 。"}
    assert corpus.splits["train"][0].text == want[choice]
