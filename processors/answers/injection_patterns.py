# ruff: noqa: E501 - a pattern that is cut in the middle cannot be read
"""What orders to a language model look like, by language and by form.

Every pattern is matched against lower case with single spaces (``processors.answers.injection``). One of its hints
(``_`` is a space) stands in every text that it matches: looking for them first is much faster. All gaps are bounded, so
that no text makes a match slow.
"""

import re
from typing import NamedTuple


class Pattern(NamedTuple):
    """One way to give an order; ``kind`` names what it is after."""

    kind: str
    hints: tuple[str, ...]
    regex: re.Pattern[str]


# Who disregards, and what that was said earlier.
_EN_VERB = (
    r"\b(?:ignor(?:e|ing)|disregard(?:ing)?|forget|discard|overrid(?:e|ing)|bypass|set aside|stop obeying|"
    r"(?:do not|don't|need not|don't (?:need|have) to|no longer|stop) (?:follow(?:ing)?|obey(?:ing)?))\b"
)
_EN_SAID = (
    r"(?:(?:all|any|every|the|your|these|those|my|its|of) ){0,3}"
    r"(?:(?:previous|prior|above|earlier|preceding|original|initial|existing|safety|system|foregoing) "
    r"(?:(?:or|and|\w+) ){0,2}(?:instructions?|prompts?|rules?|guidelines?|guidance|directives?|context|messages?|directions?)"
    r"|(?:instructions?|rules?|guidelines?|directives?|prompts?|context|everything|anything)\b.{0,25}"
    r"(?:\byou (?:have|had|were|are|got)\b.{0,20}\b(?:told|given|learn|received|handed)|\babove\b|\bbefore\b|\bso far\b|"
    r"\bof the (?:operator|developer))"
    r"|(?<=your )(?:\w+ )?(?:instructions?|rules?|guidelines?|directives?|prompts?|training|programming))"
)
_DE_VERB = r"\b(?:ignorier(?:e|t|en)?|missachten?|vergiss|vergesst|vergessen|übergehen?|befolge (?:nicht|keine))\b"
_DE_SAID = (
    r"(?:sie |einfach |bitte ){0,2}(?:(?:alle|alles|die|deine|jede|ihre|sämtliche) ){0,2}"
    r"(?:(?:vorherig|bisherig|obig|früher|vorig|ursprünglich|vorangegangen)\w{1,3} "
    r"(?:anweisung|regel|instruktion|richtlinie|vorgabe|befehl|prompt)|alles\b.{0,15}\bwas\b.{0,15}\bgesagt"
    r"|(?<=alles,) was\b.{0,20}\bgesagt|(?<=deine )(?:anweisung|regel|instruktion|richtlinie|vorgabe))"
)
_FR_VERB = (
    r"(?<!n')\b(?:ignor(?:e|ez|er)|oubli(?:e|ez|er)|"
    r"ne (?:suis|suivez|tiens|tenez) (?:pas|plus|aucun compte|pas compte)(?: compte)?(?: de(?:s)?)?)\b"
)
_FR_SAID = (
    r"(?:(?:toutes?|tous|les|des|tes|vos|de) ){0,3}(?:instructions?|consignes?|règles?|directives?)"
    r" (?:précédentes?|ci-dessus|antérieures?|initiales?|données?|reçues?)"
)
_ES_VERB = (
    r"(?<!no )\b(?:ignor(?:a|e|ad|ar)|olvid(?:a|e|ad|ar)|(?:haz|haga) caso omiso de|"
    r"no (?:hagas?|haz|haga) caso (?:de|a)|no sigas|desobedece)\b"
)
_ES_SAID = (
    r"(?:(?:todas?|todos?|las|los|tus|sus|lo|que) ){0,3}(?:(?:instrucciones|reglas|indicaciones|órdenes|directrices) "
    r"(?:anteriores|previas|de arriba|iniciales|que)|que te han dicho|te han dicho)"
)
_IT_VERB = r"(?<!non )\b(?:ignor(?:a|ate|are)|dimentica(?:te|re)?|trascura(?:te)?|non seguire(?: più)?)\b"
_IT_SAID = r"(?:(?:tutte?|tutti|le|gli|i|tue) ){0,3}(?:istruzioni|regole|indicazioni|direttive) (?:precedenti|sopra|iniziali|che ti)"
_PT_VERB = r"(?<!não )\b(?:ignor(?:e|a|ar|em)|esqueça|esquece|desconsidere?|não sig(?:a|as))\b"
_PT_SAID = r"(?:(?:todas?|todos?|as|os|suas) ){0,3}(?:instruções|regras|orientações|diretrizes) (?:anteriores|acima|iniciais|que)"
_NL_VERB, _NL_SAID = (
    r"\b(?:negeer|vergeet(?! niet)|volg niet)\b",
    r"(?:(?:alle|de|je|uw) ){0,2}(?:vorige|eerdere|bovenstaande|voorgaande) (?:instructies|regels|opdrachten)",
)
_PL_VERB, _PL_SAID = (
    r"(?<!nie )\b(?:z?ignoruj|zapomnij|pomiń)\b",
    r"(?:o )?(?:wszystkie |wszystkich )?(?:poprzedni|powyższ|wcześniejsz)\w+ (?:instrukcj|poleceni|zasad)",
)
_RU_VERB, _RU_SAID = (
    r"(?<!не )\b(?:(?:про)?игнорируй(?:те)?|забудь(?:те)?|не (?:выполняй|следуй|соблюдай)(?:те)?)\b",
    r"(?:(?:все|всё|о|свои|твои) ){0,2}(?:(?:предыдущ|прежн|прошл|вышеуказанн)\w+ (?:инструкци|указани|правил|команд)"
    r"|(?:инструкци|указани|правил)\w+,? (?:которые|данные)\b.{0,25}\b(?:выше|ранее|даны|дали))",
)
_MACHINE = (
    r"(?:ai|a\.i\.|llms?|(?:large )?language models?|chat ?bots?|chatgpt|gpt(?:-\d)?|claude|gemini|copilot|"
    r"ki(?:-\w+)?|sprachmodelle?n?|ia|modelos? de lenguaje|modèles? de langage|modell[oi] linguistic[oi])"
)
_ORDER = (
    r"(?:always|never|ignore|reply|respond|answer|say|output|print|recommend|tell|include|rate|praise|do not|don't|"
    r"add|give|write|state|conclude|approve|rank|summari[sz]e|mention)"
)
_SHOW = r"(?:reveal|print|show|repeat|output|display|tell me|give me|write (?:out|down)|expose|leak|disclose)"
_HISTORY = r"(?:gesprächsverlauf|chatverlauf|gesamten verlauf|konversation|unterhaltung)"

_TABLE: dict[str, list[tuple[str, str]]] = {
    "override": [
        ("ignor disregard forget discard overrid bypass aside obey follow", rf"{_EN_VERB}[ ,:]{{1,2}}{_EN_SAID}"),
        ("set_aside", r"\bset aside (?:what|every)\w* (?:the )?(?:operator|developer|system|user)\b"),
        ("ignor missacht vergiss vergess übergeh befolge", rf"{_DE_VERB}[ ,:]{{1,2}}{_DE_SAID}"),
        ("ignor oubli ne_s ne_t", rf"{_FR_VERB}[ ,:]{{1,2}}{_FR_SAID}"),
        ("ignor olvid caso no_sigas desobedece", rf"{_ES_VERB}[ ,:]{{1,2}}{_ES_SAID}"),
        ("ignor dimentica trascura non_segui", rf"{_IT_VERB}[ ,:]{{1,2}}{_IT_SAID}"),
        ("ignor esque desconsider não_sig", rf"{_PT_VERB}[ ,:]{{1,2}}{_PT_SAID}"),
        ("negeer vergeet volg", rf"{_NL_VERB}[ ,:]{{1,2}}{_NL_SAID}"),
        ("ignoruj zapomnij pomiń", rf"{_PL_VERB}[ ,:]{{1,2}}{_PL_SAID}"),
        ("игнорируй забудь не_", rf"{_RU_VERB}[ ,:]{{1,2}}{_RU_SAID}"),
        ("yok_say unut görmezden dikkate", r"\b(?:önceki|yukarıdaki) (?:tüm |bütün )?(?:talimat|kural|komut)\w* "
         r"(?:yok say|unut|görmezden gel|dikkate alma)"),
        ("忽略 无视 無視 忘记 忘記 不要 别", r"(?:忽略|无视|無視|忘记|忘記|(?:不要|别)(?:理会|遵守|管|听)).{0,6}"
         r"(?:之前|以上|先前|前面|上面|所有|上述).{0,8}(?:指令|指示|规则|規則|提示|说明)"),
        ("無視 忘れ 従わ", r"(?:これまで|以前|上記|前)の.{0,8}(?:指示|命令|ルール|指令).{0,8}(?:無視|忘れ|従わな)"),
        ("무시 잊", r"(?:이전|앞|위)의? ?(?:모든 )?(?:지시|명령|규칙|지침)\w{0,3} ?(?:사항을 )?(?:모두 )?(?:무시|잊)"),
        ("cancel void obsolete suspended", r"\b(?:your|all|the) (?:prior|previous|original|earlier) "
         r"(?:directives?|instructions?|rules?|guidance) (?:are|is|were) (?:now |hereby )?"
         r"(?:cancell?ed|(?:null and )?void|obsolete|suspended)"),
        ("gelten_nicht aufgehoben", r"\b(?:alle|die|deine) (?:bisher\w*|vorher\w*|obig\w*|zuvor)(?: erteilten| gegebenen)? "
         r"(?:anweisungen|vorgaben|instruktionen) (?:gelten nicht mehr|sind (?:hiermit )?aufgehoben)"),
        ("new_inst new_rul new_ord", r"\b(?:follow|obey) (?:only )?(?:these|the following|my) new (?:instructions|rules|orders)"),
        ("ignorea ignorep disregarda disregardp forgeta",
         r"(?:ignore|disregard|forget)(?:all|any|the|your)*(?:previous|prior|above)(?:instruction|rule|prompt)"),
    ],
    "address": [
        ("note message instruction attention reminder notice",
         rf"\b(?:notes?|message|instructions?|attention|reminder|notice)(?: to| for)? (?:all |any |the )?{_MACHINE}"
         r"(?: (?:assistants?|systems?|agents?|models?|reviewers?|readers?|tools?))?\b ?[:,\-–]"),
        ("if_you", rf"\bif you(?: are|'re) (?:an? |the )?{_MACHINE}\b"),
        ("dear_ hey_ hello_", rf"\b(?:dear|hey|hello) (?:{_MACHINE}|assistant)(?: assistant| model)?,.{{0,80}}\b{_ORDER}\b"),
        ("_must _should _have", rf"(?:^|[.!?:] ){_MACHINE} (?:assistants|reviewers|models|systems|agents|readers) "
         rf"(?:must|should|have to) (?:only |always |never )?{_ORDER}\b"),
        ("hinweis nachricht anweisung achtung",
         rf"\b(?:hinweis|nachricht|anweisung|achtung)(?: an| für)? (?:alle |die )?{_MACHINE}(?:-systeme?| systeme?)? ?:"),
        ("wenn_", rf"\bwenn (?:du|sie) (?:eine? )?{_MACHINE} (?:bist|sind)\b"),
        ("note_", rf"\bnote (?:à|aux|pour) (?:les |l')?(?:assistants? |modèles? )?{_MACHINE} ?:"),
        ("si_eres si_es si_tu", rf"\b(?:si eres|si es usted|si tu es) (?:une? |un )?{_MACHINE}\b"),
    ],
    "role": [
        ("you_are", r"\byou are (?:now )?(?:dan\b|jailbroken|no longer (?:bound|an assistant)|"
         r"an? (?:ai|assistant|model)\b.{0,20}\b(?:without|with no|free of)\b)"),
        ("you_are", r"\byou are now an? (?:\w+ )?(?:ai|assistant|chatbot|language model|pirate|hacker)\b"),
        ("from_now", r"\bfrom now on,? you (?:will |must |should |shall |are going to )?(?:only |always )?"
         r"(?:respond|answer|reply|speak|talk|act|behave|pretend|obey|comply)\b"),
        ("pretend act_as roleplay behave", r"\b(?:pretend (?:to be|that you are|you are)|act as|roleplay as|behave like) "
         r"(?:an? |the )?(?:unrestricted|uncensored|unfiltered|evil|jailbroken|malicious|different) "
         r"(?:\w+ ){0,2}(?:ai|model|assistant|chatbot)"),
        ("_mode", r"\b(?:enter|enable|activate|switch to) (?:developer|dan|god|jailbreak|debug) mode\b.{0,60}"
         r"\b(?:polic(?:y|ies)|filters?|restrictions?|rules?|guidelines?)\b"),
        ("let's_play", r"\blet's play a game\b.{0,30}\byou (?:have|are|will|say)\b"),
        ("du_bist als_wärst", r"\b(?:du bist (?:ab jetzt |jetzt |nun |von nun an )?|als wärst du )(?:ein|eine) (?:\w+ )?"
         r"(?:assistent\w*|ki|sprachmodell|chatbot)\b"),
        ("tu_es vous_êtes", r"\b(?:tu es|vous êtes) (?:désormais |maintenant )?un (?:pirate|(?:assistant|modèle|chatbot) "
         r"(?:\w+ ){0,2}(?:sans|libre))"),
        ("eres_", r"\beres (?:ahora )?un (?:asistente|modelo|chatbot) (?:\w+ ){0,2}(?:sin|libre)"),
        ("sei_", r"\bsei (?:ora |adesso )?un (?:assistente|modello|chatbot) (?:\w+ ){0,2}(?:senza|libero)"),
        ("você_é és_", r"\b(?:você é|és) (?:agora )?um (?:assistente|modelo|chatbot) (?:\w+ ){0,2}(?:sem|livre)"),
        ("限制", r"你(?:现在)?是.{0,4}(?:没有|不受|毫无).{0,6}限制"),
        ("ты_", r"\bты (?:теперь |отныне )?(?:ассистент|помощник|модель|бот) без\b"),
    ],
    "leak": [
        ("prompt instructions system_message", rf"\b{_SHOW}\b.{{0,30}}\b(?:your|the) (?:\w+ )?(?:system prompt|initial prompt|"
         r"hidden prompt|original prompt|initial instructions|system message|hidden instructions|secret instructions)"),
        ("system_message system_prompt", r"\b(?:text|words|content|copy) of your system (?:message|prompt)\b"),
        ("confidential hidden secret", r"\b(?:confidential|hidden|secret) (?:rules|instructions) (?:that )?you\b"),
        ("your_", r"\b(?:print|repeat|reveal|output|display|leak) (?:all )?(?:of )?your (?:prompt|instructions|rules|guidelines)\b"),
        ("repeat_", r"\brepeat (?:everything|all|the (?:text|words)) (?:above|before)\b.{0,40}\byou are\b"),
        ("what_", r"\bwhat (?:are|is|were) your (?:hidden|secret|system|initial|original) (?:instructions?|prompt|rules?)"),
        ("prompt anweisung", r"\b(?:gib|zeige?|nenne?|verrate?|wiederhole)\b.{0,25}\b(?:deinen|den|die|deine) (?:\w+ )?"
         r"(?:system-?prompt|systemanweisung\w*|geheimen anweisungen|initialen prompt)"),
        ("prompt instruction", r"\b(?:affiche|montre|révèle|donne|répète)\b.{0,10}\b(?:ton|tes|votre|vos|le|les) "
         r"(?:prompt|instructions?) (?:système|initial|secr[eè]t|caché)"),
        ("prompt instrucc", r"\b(?:muestra|revela|imprime|repite|dime)\b.{0,10}\b(?:tu|tus|el|las) (?:prompt|instrucciones) "
         r"(?:del sistema|inicial|ocult|secret)"),
        ("prompt istruzion", r"\b(?:mostra|rivela|stampa|ripeti)\b.{0,10}\b(?:tuo|tue|il|le) (?:prompt|istruzioni) "
         r"(?:di sistema|inizial|nascost|segret)"),
        ("prompt instruç", r"\b(?:mostre|revele|imprima|repita)\b.{0,10}\b(?:seu|suas|o|as) (?:prompt|instruções) "
         r"(?:do sistema|inicia|ocult|secret)"),
        ("систем", r"\b(?:покажи|раскрой|выведи|повтори)\b.{0,20}\bсистемн\w+ (?:промпт|инструкци|подсказк)"),
        ("系统 系統 初始", r"(?:输出|显示|告诉我|打印|泄露|透露|重复).{0,6}(?:系统提示|系統提示|系统指令|初始提示)"),
        ("システムプロンプト", r"システムプロンプト.{0,10}(?:表示|出力|教え|見せ)"),
        ("시스템", r"시스템 ?프롬프트.{0,10}(?:출력|보여|알려)"),
    ],
    "exfiltration": [
        ("![", r"!\[[^\]]{0,60}\]\(\s?https?://[^)\s]{0,200}[?&=][^)]{0,80}"
         r"(?:\[|\{|<|%7b|secret|password|question|conversation|history|api[_-]?key)"),
        ("http www.", r"(?<!never )(?<!not )\b(?:send|post|forward|upload|transmit|leak|exfiltrate)\b.{0,25}"
         r"\b(?:conversation|chat|prompt|question|session|user'?s?)(?:'s)? ?"
         r"(?:history|log|transcript|content|data|input|question|messages|itself)?\b.{0,25}\bto (?:the url )?(?:https?://|www\.)"),
        ("url link image http", r"\b(?:append|add|include|insert|encode|put)\b.{0,15}"
         r"\b(?:user'?s?|conversation|other documents|chat|prompt|contents)\b.{0,60}\b(?:url|link|image|https?://)"),
        ("verlauf konversation unterhaltung", rf"\b(?:sende|schicke|übermittle)\b.{{0,20}}\b{_HISTORY}\b"),
        ("historique conversation", r"\b(?:envoie|envoyez|transmets)\b.{0,20}\b(?:historique|conversation)\b.{0,30}https?://"),
        ("historial conversación", r"\b(?:envía|manda)\b.{0,20}\b(?:historial|conversación)\b.{0,30}https?://"),
    ],
    "marker": [
        ("<|", r"<\|(?:im_start|im_end|system|user|assistant|endoftext|eot_id|start_header_id)\|?>?"),
        ("inst] sys>", r"\[/?inst\]|<</?sys>>"),
        ("<system> </context> </passage </system> </document", r"</?system>|</(?:context|passages?|documents?)>"),
        ("instruction: response: system:", r"^#{2,4} ?(?:instruction|response|system) ?:"),
        ("system assistant", r"^(?:system|assistant) ?: ?(?:you |ignore|always|never|new |forget|the user|from now)"),
        ("==", r"^={2,}[0-9a-f]{8,}\b"),
    ],
    "tool": [
        ("<tool </tool <function </function <invoke </invoke", r"</?(?:tool_call|tool_use|function_calls?|invoke|tool_response)\b"),
        ('"arg "param "input', r"\{ ?\"(?:name|tool|function)\" ?: ?\"[\w.\-]+\" ?, ?\"(?:arguments|parameters|args|input)\" ?:"),
        ("action_input", r"\baction ?: ?\w+\s+action input ?:"),
        ("you_read you_see you_have", r"\b(?:call|invoke|execute|run|use) the (?:function|tool|command|plugin) \w+_\w+.{0,40}"
         r"\b(?:as soon as|when|once|after) you (?:read|see|have read)"),
    ],
}  # fmt: skip

PATTERNS = [
    Pattern(kind, tuple(hint.replace("_", " ") for hint in hints.split()), re.compile(regex, re.MULTILINE))
    for kind, patterns in _TABLE.items()
    for hints, regex in patterns
]
