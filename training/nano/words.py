"""The closed vocabulary of the sentences of `text.py`.

Verbs are written `base` or `base:past`; `inflect` derives the regular forms. The grammar avoids the participles of
verbs with an irregular past, so none are stored.
"""


def _split(block: str) -> tuple[str, ...]:
    return tuple(block.split())


PERSONS = _split("""
    teacher doctor nurse farmer sailor soldier captain lawyer baker singer writer painter driver king queen prince
    princess hunter student servant stranger neighbor officer judge priest poet guard gardener engineer pilot chef
    waiter butcher tailor carpenter plumber mechanic scientist professor artist actor dancer musician author editor
    reporter detective dentist surgeon patient clerk cashier manager secretary banker merchant shepherd fisherman miner
    knight wizard giant pirate thief prisoner mayor president minister governor general coach runner swimmer champion
    guest visitor tourist traveler passenger customer owner child boy girl man woman baby lady gentleman librarian
    inventor architect boss witness expert leader hero
""")
KIN = _split(
    "mother father brother sister uncle aunt cousin grandmother grandfather nephew niece husband wife son daughter"
)
NAMES = _split("""
    john mary peter anna thomas alice george helen robert emma david sarah henry julia martin laura oliver sophie
    daniel rachel simon clara walter grace james lucy william ruth edward rose arthur jane frank nora samuel eva jack
    olivia charles maria philip diana victor irene albert margaret hugo martha adam susan paul kate leo amelia felix
    hannah oscar stella
""")
ANIMALS = _split("""
    dog cat horse bird sheep cow fox wolf bear mouse rabbit lion duck goose eagle snake frog bee pig goat donkey camel
    elephant tiger monkey zebra giraffe deer squirrel beaver otter whale dolphin shark turtle lizard parrot owl crow
    pigeon swan chicken turkey spider butterfly ant kitten puppy lamb pony falcon hedgehog penguin seal
""")
THINGS = _split("""
    book letter lamp box key bottle cup plate knife basket blanket ring clock picture map paper pen bell rope candle
    mirror carpet hammer wheel stone stick sword flag drum violin piano camera ladder bucket bag coin watch flower
    pencil notebook envelope stamp newspaper magazine painting statue vase pillow towel brush comb scissors needle
    thread button spoon fork bowl pot kettle teapot jug tray lid broom mop shovel rake axe saw drill nail screw brick
    chain wire cable battery radio television computer keyboard phone telescope compass lantern torch ball kite doll
    puppet toy puzzle guitar flute trumpet whistle umbrella suitcase wallet purse ticket passport diary calendar
    crown necklace bracelet jewel diamond feather shell parcel package
""")
FURNITURE = _split("table chair bed desk shelf couch bench stool cupboard wardrobe drawer sofa fireplace bookcase")
CLOTHES = _split("""
    coat hat shoe shirt jacket dress skirt sweater scarf glove boot sock belt tie apron cap suit cloak uniform vest
""")
VEHICLES = _split(
    "boat cart wagon ship bicycle car truck bus train taxi plane ferry canoe tractor van motorcycle carriage"
)
FOODS = _split("""
    bread butter milk tea coffee soup rice meat wine water sugar salt honey corn fruit cheese chocolate jam pepper
    flour juice pasta salad pizza chicken fish beef bacon toast cream ice vinegar mustard garlic ginger lemonade beer
    porridge yogurt spinach lettuce cabbage celery
""")
EDIBLES = _split("""
    apple orange cake potato egg sandwich banana pear plum peach cherry grape lemon melon strawberry tomato carrot onion
    mushroom pumpkin biscuit cookie pie muffin pancake sausage walnut
""")
PLACES = _split("""
    house garden village city street market church school station harbor tower library kitchen cellar attic barn stable
    hotel theater museum hospital office factory bakery road corner square park bridge farm camp prison palace shop
    castle garage bathroom bedroom balcony hall corridor basement roof courtyard university college restaurant cafe
    bank cinema stadium airport supermarket pharmacy laboratory workshop mill temple cathedral monastery inn cottage
    apartment classroom playground zoo circus port warehouse lighthouse tunnel embassy court gallery studio
""")
LANDS = _split("""
    river forest mountain island valley field beach desert lake hill cave cliff canyon waterfall meadow swamp ocean
    coast shore bay stream pond jungle volcano glacier plain path trail orchard vineyard wood
""")
CITIES = _split("""
    london paris berlin rome madrid vienna dublin lisbon oslo athens moscow cairo tokyo boston chicago dallas denver
    seattle toronto sydney delhi havana prague warsaw budapest geneva
""")
COUNTRIES = _split("""
    england france germany italy spain portugal norway sweden denmark finland poland russia egypt india china japan
    canada mexico brazil australia ireland scotland greece turkey kenya america
""")
NATIONS = _split("english french german italian spanish russian chinese japanese american british dutch irish greek")
ADJECTIVES = _split("""
    old young small large little tall short happy sad quiet strong weak rich poor kind cruel brave clever foolish
    beautiful ugly dark bright cold warm heavy light empty broken clean dirty strange common golden silver wooden narrow
    wide deep ancient modern famous gentle honest lonely proud simple tired hungry wild angry busy calm careful cheap
    cheerful comfortable curious delicate elegant enormous expensive fancy fresh friendly frightened funny generous
    graceful handsome healthy huge lazy long lovely lucky mysterious nervous new noisy ordinary patient peaceful plain
    pleasant polite pretty precious rare rough round rusty secret serious shallow sharp shiny shy silent silly slender
    smooth soft square steep sticky thick thin tiny useless valuable wet wise wonderful worried wooden
""")
PERSON_ADJECTIVES = _split("""
    old young tall happy sad quiet kind cruel brave clever foolish famous gentle honest lonely proud tired hungry angry
    busy calm careful cheerful curious friendly frightened funny generous handsome lazy lucky nervous patient polite
    poor rich serious shy silent silly wise worried loyal stubborn sleepy jealous thirsty sick rude greedy bold
""")
THING_ADJECTIVES = _split("""
    old small large little beautiful ugly bright heavy light empty broken clean dirty strange golden silver wooden
    narrow ancient modern simple cheap delicate elegant enormous expensive fancy huge long lovely mysterious new
    ordinary plain precious rare round rusty secret sharp shiny smooth soft square sticky thick thin tiny useless
    valuable wet plastic leather metal glass iron copper cotton silk
""")
PLACE_ADJECTIVES = _split("""
    old small large dark cold warm empty quiet noisy crowded narrow ancient modern famous beautiful ugly busy clean
    dirty comfortable peaceful pleasant strange new distant nearby lonely royal public private local national
""")
LAND_ADJECTIVES = _split(
    "wide deep dark cold green quiet beautiful distant steep frozen dry wild great shallow sandy rocky misty sunny"
)
COLORS = _split("red blue green yellow black white brown gray purple pink orange violet")
VERBS_TRANSITIVE = _split("""
    carry find:found lose:lost buy:bought sell:sold paint clean break:broke repair watch remember forget:forgot want
    need love hate take:took bring:brought keep:kept hide:hid show:showed receive offer choose:chose drop:dropped touch
    notice borrow return measure count describe protect destroy admire steal:stole throw:threw catch:caught pull push
    lift wash polish wrap:wrapped fold hold:held pack weigh examine draw:drew design build:built burn bury collect
    deliver discover exchange fix grab:grabbed hand inspect mention order own photograph pick place prepare print
    recognize remove replace rescue send:sent shake:shook share study test use decorate like prefer:preferred
""")
VERBS_INTRANSITIVE = _split("""
    walk run:ran sleep:slept laugh cry wait arrive return work stop:stopped dance sing:sang smile travel wander rest
    whisper shout listen disappear swim:swam climb jump fall:fell stand:stood sit:sat kneel:knelt hurry march crawl
    gather appear scream complain argue hesitate escape survive relax breathe pause play stay live shiver tremble
""")
VERBS_PERSON = _split("""
    ask tell:told help follow meet:met call thank greet invite visit teach:taught warn trust surprise answer blame
    punish marry kiss hug:hugged join obey praise forgive:forgave ignore interrupt introduce advise encourage
    disappoint fight:fought feed:fed
""")
ADVERBS = _split("""
    slowly quickly quietly suddenly carefully gladly always often seldom finally already gently loudly silently again
    together alone patiently easily happily sadly bravely calmly angrily nervously politely secretly rarely usually
    sometimes immediately eagerly softly proudly honestly barely almost clearly badly
""")
ABSTRACTS = _split("""
    truth time hope fear music silence power money peace war love death life nature history science wisdom courage
    beauty danger fortune trouble pleasure sorrow knowledge justice freedom honor memory language friendship
    happiness anger patience health success failure education religion art poetry luck fame duty progress experience
    respect loyalty kindness curiosity faith pride poverty wealth youth age hunger sleep work law trade
""")
TOPICS = _split("""
    problem question answer idea plan reason result decision lesson story song poem speech report letter secret promise
    mistake accident adventure journey dream game contest discovery experiment invention theory method project contract
    agreement rule tradition custom legend rumor argument opinion conversation discussion message warning explanation
    suggestion program article chapter novel movie play film concert lecture
""")
EVENTS = _split("""
    meeting party wedding concert lecture match race festival ceremony lesson dinner breakfast lunch movie show play
    exam election parade trip holiday exhibition auction conference trial
""")
ABSTRACT_ADJECTIVES = _split("""
    important difficult necessary useless possible impossible dangerous useful certain terrible wonderful easy hard
    simple strange natural interesting boring exciting sensible reasonable silly wrong right fair
""")
TOPIC_ADJECTIVES = _split("""
    important difficult simple strange interesting boring exciting sensible terrible wonderful new old long short
    clever foolish famous secret serious funny sad perfect final early recent official popular brilliant awful
""")
PLURALS = _split("""
    dogs cats horses birds sheep children men women soldiers sailors trees flowers books letters houses ships stars
    stones apples candles windows people students friends questions answers stories songs words pieces chairs tables
    bottles boxes keys coins cows goats bees ducks fish eggs oranges potatoes tickets pictures maps tourists workers
    teachers doctors nurses farmers passengers visitors boats cars trucks buses trains planes bicycles shirts shoes
    bags cups plates stamps lamps clouds mountains islands rivers lakes bridges villages cities streets
""")
DISTANCES = _split("miles feet inches meters steps kilometers yards")
DURATIONS = _split("hours days years minutes weeks months seconds")
WEATHER = _split(
    "rain snow wind sun storm fog moon thunder sky sea fire smoke mist hail frost lightning sunlight darkness dust sand"
)
WEATHER_ADJECTIVES = _split("cold warm sunny cloudy rainy windy foggy stormy dry hot wet cool icy mild humid")
BODY = _split("""
    hand arm leg foot head eye ear nose mouth face hair neck shoulder knee finger thumb elbow back chest stomach heart
    tooth tongue cheek chin
""")
PARTS = _split("door window wall floor ceiling gate stairs roof entrance chimney fence curtain lock handle key")
SUBJECTS = _split("""
    mathematics physics chemistry biology geography history grammar music medicine law philosophy economics english
    french
""")
SPORTS = _split("football tennis chess cricket baseball basketball golf hockey rugby cards")
PLANTS = _split("tree rose tulip oak pine willow daisy lily bush grass ivy fern maple cactus weed")
METALS = _split(
    "gold silver iron copper steel tin lead glass wood paper leather cotton wool silk clay marble rubber plastic"
)
STARS = _split("earth moon sun planet comet mars venus jupiter saturn mercury")
DAYS = _split("monday tuesday wednesday thursday friday saturday sunday")
MONTHS = _split("january february march april may june july august september october november december")
SEASONS = _split("spring summer autumn winter")
ORDINALS = _split("first second third fourth fifth sixth seventh eighth ninth tenth last next")
DIGITS = _split("zero one two three four five six seven eight nine")
TEENS = _split("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen")
TENS = _split("twenty thirty forty fifty sixty seventy eighty ninety")
PREPOSITIONS = _split(
    "in near behind beside beyond before across above below around inside outside through toward from opposite past"
)

# Verbs whose last consonant doubles before -ing although the past form does not show it.
DOUBLING = frozenset(_split("forget run swim sit"))


def inflect(entry: str) -> dict[str, str]:
    """The four forms of a verb entry `base[:past]`.

    Returns:
        `base`, `past`, `ing` and `third` (third person singular), by the regular spelling rules of English.
    """
    base, _, past = entry.partition(":")
    ends_in_consonant_y = base.endswith("y") and base[-2] not in "aeiou"
    if not past:
        past = base + "d" if base.endswith("e") else base[:-1] + "ied" if ends_in_consonant_y else base + "ed"
    doubles = past == base + base[-1] + "ed" or base in DOUBLING
    stem = base + base[-1] if doubles else base[:-1] if base.endswith("e") and not base.endswith("ee") else base
    if ends_in_consonant_y:
        third = base[:-1] + "ies"
    else:
        third = base + ("es" if base.endswith(("s", "x", "z", "ch", "sh", "o")) else "s")
    return {"base": base, "past": past, "ing": stem + "ing", "third": third}
