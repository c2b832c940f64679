"""The words that the rules know: English only. What is not here is left as it was said."""

from __future__ import annotations

import re


def listed(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Verbs whose first person present takes an ending in the third; forms that are also a past tense (put, read) are left out.
PRESENT = listed(
    """
    accept add adore agree allow announce appear appreciate arrange arrive ask attend avoid babysit bake believe belong
    borrow bring build bury buy call care carry catch celebrate change check choose clean climb close coach collect come
    complain consider cook cycle dance deal delete depend design dislike draw dream drink drive earn eat edit enjoy expect
    explore fear feed feel fight file find finish fix fly follow forget garden get give go grow guess handle happen hate
    have hear help hide hike hold hope host imagine invest keep knit know lack learn leave lecture lend like listen live
    look lose love maintain make manage mean meet mentor mind miss move need notice offer open order organise organize owe
    own pack paint pay perform pick plan play practice practise prefer prepare pull push race raise reach recommend refuse
    rehearse remember rent repair ride run save say see seek sell send serve sew share shop show sing sit skate ski sketch
    sleep smoke speak spend stand start stay stop study suffer suggest support surf swim take talk teach tend thank think
    train travel try turn type understand use visit volunteer wait wake walk want watch wear win wish wonder work worry
    write
    """
)
PAST = listed(
    """
    ate became began bought broke brought built came caught chose cut did drank drove fell felt fought found flew forgot
    froze gave got grew had heard held hid hit hurt kept knew laid led left lent let lost made meant met paid put quit ran
    rang read rode said sang sat saw sent set shook shut slept slid sold spent spoke spread stood swam swore taught thought
    threw told took tore understood was went woke won wore wrote used
    """
)
MODAL = listed(
    """
    can could will would should might may must shall can't cannot couldn't won't wouldn't shouldn't mustn't mightn't
    """
)
ADVERB = listed(
    """
    actually already also always definitely even ever finally first hardly just mainly mostly much never normally now often
    only probably quite rarely really recently regularly simply sometimes soon still then therefore truly typically usually
    currently personally absolutely again
    """
)
AUXILIARY = {"am": "is", "have": "has", "do": "does", "was": "was", "don't": "does not", "haven't": "has not",
             "didn't": "did not", "wasn't": "was not", "hadn't": "had not", "were": "were"}
CONTRACTED = {"i'm": "is", "i've": "has", "i'll": "will"}

FIRST_PERSON = re.compile(r"\b(?:I|me|[Mm]y|i'm|i've)\b|\bI['\u2019]")
UNSAFE_PERSON = re.compile(
    r"\b(?:we|us|our|ours|you|your|yours|mine|myself|ourselves|let['\u2019]?s|y['\u2019]all)\b", re.IGNORECASE
)
HEDGE = re.compile(
    r"\b(?:maybe|perhaps|might|possibly|probably|i think|i guess|i suppose|not sure|thinking (?:of|about)|consider\w*|hopefully|"
    r"i hope|could)\b",
    re.IGNORECASE,
)

MONTH = "january|february|march|april|may|june|july|august|september|october|november|december"
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
WEEKDAY = "|".join(WEEKDAYS)

SMALL_NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
                 "nine": 9, "ten": 10, "twelve": 12}

# Words too common to show that two statements are about one thing.
GENERIC = listed(
    """
    all always another anyway around away back bad bit call come course day done down else enough ever every far feel few
    find first get give go good got great guess half happen here hour keep kind know last least left let like little long
    look lot love made make many maybe mean mind minute month morning much name need never new next nice night now off oh ok
    okay old once one only other over own part people place put quite rather real really right said say see seem set since
    small soon sorry start still stop such sure take talk tell ten thing think though three time today told tomorrow took
    tri try turn two use want way week well went while whole will work worth yeah year yes yesterday yet before again being
    these those without five four six pound after leav move best both each same thank hope
    """
)
