"""What the rules know of English and German: word lists, in lower case, and which of the two a text is in."""

import re

_WORD = re.compile(r"[^\W\d_]+")


def _words(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Never part of a name, whatever their capital.
ENGLISH_FUNCTION_WORDS = _words(
    "a about after again all also although always am an and another any are as at be because been before "
    "but by can could did do does don't each even every everyone everything few finally first for from "
    "good had has have he hence her here hi hello his how however i i'd i'll i'm i've if in indeed "
    "instead is it it's its just last later let let's like many may maybe me more moreover most much must "
    "my next no nor not nothing now of off often ok okay on once one only or other others otherwise our "
    "out over part per perhaps please really same second see several shall she should since so some "
    "someone something sometimes soon still such sure than thank thanks that that's the their them then "
    "there there's therefore these they third this those though through thus to today together tomorrow "
    "too two three under unfortunately unless until up upon us use very was we well were what whatever "
    "when where whether which while who whose why will with within without would yes yesterday yet you "
    "your"
)
GERMAN_FUNCTION_WORDS = _words(
    "aber alle allein allem allen aller allerdings alles als also am an andere anderen auch auf aus "
    "außerdem bei beide beim bereits bis bisher da dabei dadurch dafür dagegen daher damals damit danach "
    "dann daran darauf darin darüber darum das dass davon dazu dem den denn dennoch der deren des deshalb "
    "dessen die dies diese diesem diesen dieser dieses doch dort drei durch ebenfalls ebenso eigentlich "
    "ein eine einem einen einer eines einige einigen er erst es etwa für ganz gegen gibt hat hatte hatten "
    "heute hier hinter ich ihr ihre ihrem ihren im immer ins ist ja jede jeder jedes jedoch jetzt kann "
    "kein keine können mal man manche mehr mein meine mit nach nachdem natürlich neben nein nicht nichts "
    "noch nun nur ob obwohl oder ohne schon sehr sein seine seinem seinen seiner seit sich sie sind sogar "
    "sondern sonst soll sowie trotz trotzdem über um und uns unser unsere unter viel viele vielleicht "
    "vielen vier vom von vor während wann war waren warum was weil weiter weitere welche wenn wer werden "
    "wie wieder will wir wird wo wobei wurde wurden zu zudem zuerst zum zur zusammen zwar zwei zwischen "
    "zwölf"
)
# Days, months, units, and what the web writes with a capital: no part of a name either.
COMMON_WORDS = _words(
    "monday tuesday wednesday thursday friday saturday sunday mon tue wed thu fri sat sun january "
    "february march april may june july august september october november december jan feb mar apr jun "
    "jul aug sep sept oct nov dec montag dienstag mittwoch donnerstag freitag samstag sonnabend sonntag "
    "januar jänner februar märz mai juni juli oktober dezember internet govt fax euros englisch am pm est "
    "pst gmt utc tv pc cd dvd id url faq pdf http https html xml json api usd eur ceo cfo cto vp ps re "
    "fyi asap usw bzw etc st nr mm cm km kg ii iii iv vi vii viii ix xi xii note todo fixme figure table "
    "chapter section page abbildung tabelle kapitel abschnitt seite euro dollar cent prozent million "
    "millionen milliarde milliarden uhr jahr jahre jahren jahres monat monate monaten woche wochen tag "
    "tage tagen stunden minuten meter metern kilometer kilometern tonnen liter ende anfang mitte isbn "
    "issn doi pmid kb mb gb mhz ghz"
)
# No name alone, but part of some: European Union, Deutsche Bank.
PEOPLES = _words(
    "american americans british english french german germans italian spanish russian russians chinese "
    "japanese indian israeli israelis iraqi iraqis iranian arab arabs european europeans african asian "
    "canadian mexican dutch swiss austrian turkish greek polish palestinian palestinians christian jewish "
    "muslim islamic catholic sunni shiite deutsch deutsche deutschen deutscher"
)
# Before a person's name and no part of it.
TITLES = _words(
    "mr mrs ms miss dr prof professor president senator sen governor gov minister chancellor judge "
    "justice captain capt colonel col gen lieutenant lt sir lord lady king queen pope prince princess "
    "saint secretary congressman ambassador mayor sheriff herr herrn frau doktor könig königin kaiser "
    "kaiserin papst prinz prinzessin fürst graf herzog heilige regisseur autor bischof kardinal"
)
# What ends a company's name.
COMPANY_WORDS = _words(
    "inc ltd llc llp plc corp co gmbh ag kg kgaa ohg se sa nv bv ev gbr company corporation holding group"
)
ORGANISATION_WORDS = _words(
    "university college institute academy foundation ministry department committee commission council "
    "agency association federation union party bank court church museum school hospital army society "
    "press universität hochschule institut akademie stiftung ministerium ausschuss kommission verband "
    "verein bund partei gericht gesellschaft orchester"
)
# What begins or ends the name of a place.
PLACE_WORDS = _words(
    "river lake mount mountain mountains city county street avenue road island islands bay airport sea "
    "ocean valley square bridge park beach hills strasse straße platz flughafen insel gebirge"
)
# German nouns that follow "in", "aus" or "nach" without an article, as places do.
NO_PLACES = _words(
    "form betrieb sicht kauf gefahr brand zivil gang betracht hass aussicht umlauf zusammenarbeit "
    "gegenwart kraft zukunft höhe ruhe frage haft holz stahl glas metall plastik ansicht angaben "
    "abschluss bezug verbindung folge teilen not rente"
)
# Small words inside a name; "von" joins German nouns as readily as names.
ENGLISH_PARTICLES = _words("of von van de del della di da du la le bin ibn al")
GERMAN_PARTICLES = _words("of van de del della di da du la le bin ibn al")
# They may follow a particle.
ARTICLES = _words("der den dem the la le")
GERMAN_DETERMINERS = _words(
    "der die das dem den des ein eine einem einen einer eines im am zum zur vom beim ins sein seine "
    "seinem seinen seiner ihr ihre ihrem ihren ihrer dieser diese dieses unser unsere mein meine kein "
    "keine"
)
# Their dot ends no sentence.
ABBREVIATIONS = _words(
    "mr mrs ms dr prof st jr sr sen gov gen capt col lt inc ltd co corp vs e.g i.e z.b d.h bzw ca nr hr fr"
)

_TELLING_ENGLISH = _words(
    "the of and to in is that it was for on are with as this be by not from at have or an which were"
)
_TELLING_GERMAN = _words(
    "der die das und ist nicht ein eine einen einem mit von zu den auf für im dem sich des werden wird sind auch als "
    "es wurde aus bei nach wie oder"
)


def is_german(text: str) -> bool:
    """Whether the text is German rather than English, by its function words; without any it is not."""
    words = _WORD.findall(text.lower())
    return sum(word in _TELLING_GERMAN for word in words) > sum(word in _TELLING_ENGLISH for word in words)
