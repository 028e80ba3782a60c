"""Words of messages that depend on a number."""

_VERBS = {"are": "is", "aren't": "isn't", "have": "has", "name": "names", "need": "needs", "lead": "leads"}


def counted(number: int, what: str) -> str:
    """Returns a number with what there are so many of, in the singular where that is one.

    Args:
        number: how many there are.
        what: in the plural, such as "images" or "files that are no images". The first word that ends in "s" is its
            noun, which the first verb behind it follows.
    """
    if number != 1:
        return f"{number:,} {what}"
    clause, semicolon, rest = what.partition(";")
    words = clause.split(" ")
    noun = next((index for index, word in enumerate(words) if word.rstrip(",").endswith("s")), None)
    if noun is not None:
        words[noun] = _singular(words[noun])
        verb = next((index for index, word in enumerate(words) if index > noun and word in _VERBS), None)
        if verb is not None:
            words[verb] = _VERBS[words[verb]]
    return f"1 {' '.join(words).replace('is no images', 'is no image')}{semicolon}{rest}"


def _singular(noun: str) -> str:
    word = noun.rstrip(",")
    comma = noun[len(word) :]
    for ending, one in (("sses", "ss"), ("ches", "ch"), ("xes", "x"), ("ies", "y"), ("s", "")):
        if word.endswith(ending):
            return word.removesuffix(ending) + one + comma
    return noun
