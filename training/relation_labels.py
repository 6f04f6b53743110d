"""What the relations of the data sets are called here."""

from collections.abc import Mapping

# Wikidata property -> type, and whether it reads the other way round.
WIKIDATA: Mapping[str, tuple[str, bool]] = {
    "P19": ("BORN_IN", False),
    "P569": ("BORN_ON", False),
    "P20": ("DIED_IN", False),
    "P570": ("DIED_ON", False),
    "P551": ("LIVES_IN", False),
    "P27": ("CITIZEN_OF", False),
    "P69": ("EDUCATED_AT", False),
    "P54": ("MEMBER_OF", False),  # of a sports team
    "P102": ("MEMBER_OF", False),  # of a party
    "P108": ("MEMBER_OF", False),  # employer
    "P118": ("MEMBER_OF", False),  # league
    "P241": ("MEMBER_OF", False),  # military branch
    "P463": ("MEMBER_OF", False),
    "P6": ("LEADS", True),  # head of government
    "P35": ("LEADS", True),  # head of state
    "P488": ("LEADS", True),  # chairperson
    "P26": ("SPOUSE_OF", False),
    "P22": ("PARENT_OF", True),  # father
    "P25": ("PARENT_OF", True),  # mother
    "P40": ("PARENT_OF", False),  # child
    "P3373": ("SIBLING_OF", False),
    "P166": ("AWARDED", False),
    "P112": ("FOUNDED", True),  # founded by
    "P571": ("FOUNDED_ON", False),
    "P17": ("LOCATED_IN", False),  # country
    "P30": ("LOCATED_IN", False),  # continent
    "P36": ("LOCATED_IN", True),  # capital
    "P131": ("LOCATED_IN", False),  # administrative unit
    "P150": ("LOCATED_IN", True),  # contains the administrative unit
    "P159": ("LOCATED_IN", False),  # headquarters
    "P205": ("LOCATED_IN", False),  # basin country
    "P206": ("LOCATED_IN", False),  # next to a body of water
    "P276": ("LOCATED_IN", False),
    "P706": ("LOCATED_IN", False),  # terrain feature
    "P740": ("LOCATED_IN", False),  # location of formation
    "P1376": ("LOCATED_IN", False),  # capital of
    "P179": ("PART_OF", False),  # series
    "P355": ("PART_OF", True),  # subsidiary
    "P361": ("PART_OF", False),
    "P527": ("PART_OF", True),  # has part
    "P749": ("PART_OF", False),  # parent organisation
    "P127": ("OWNS", True),  # owned by
    "P50": ("CREATED", True),  # author
    "P57": ("CREATED", True),  # director
    "P58": ("CREATED", True),  # screenwriter
    "P86": ("CREATED", True),  # composer
    "P162": ("CREATED", True),  # producer
    "P170": ("CREATED", True),
    "P176": ("CREATED", True),  # manufacturer
    "P178": ("CREATED", True),  # developer
    "P272": ("CREATED", True),  # production company
    "P676": ("CREATED", True),  # lyrics
    "P800": ("CREATED", False),  # notable work
    "P577": ("PUBLISHED_ON", False),
    "P161": ("PERFORMS_IN", True),  # cast member
    "P175": ("PERFORMS_IN", True),  # performer
    "P607": ("TOOK_PART_IN", False),  # conflict
    "P710": ("TOOK_PART_IN", True),  # participant
    "P1344": ("TOOK_PART_IN", False),
    "P580": ("HAPPENED_ON", False),  # start
    "P582": ("HAPPENED_ON", False),  # end
    "P585": ("HAPPENED_ON", False),
}

KNOWLEDGENET: Mapping[str, tuple[str, bool]] = {
    "PLACE_OF_BIRTH": ("BORN_IN", False),
    "DATE_OF_BIRTH": ("BORN_ON", False),
    "DATE_OF_DEATH": ("DIED_ON", False),
    "PLACE_OF_RESIDENCE": ("LIVES_IN", False),
    "NATIONALITY": ("CITIZEN_OF", False),
    "EDUCATED_AT": ("EDUCATED_AT", False),
    "EMPLOYEE_OR_MEMBER_OF": ("MEMBER_OF", False),
    "POLITICAL_AFFILIATION": ("MEMBER_OF", False),
    "CEO": ("LEADS", True),
    "SPOUSE": ("SPOUSE_OF", False),
    "CHILD_OF": ("PARENT_OF", True),
    "FOUNDED_BY": ("FOUNDED", True),
    "DATE_FOUNDED": ("FOUNDED_ON", False),
    "HEADQUARTERS": ("LOCATED_IN", False),
    "SUBSIDIARY_OF": ("PART_OF", False),
}

# Narrower than the type they map to: that such a fact is not annotated does not say that the type does not hold.
NARROW = frozenset({"POLITICAL_AFFILIATION", "HEADQUARTERS"})
