# SPDX-License-Identifier: GPL-3.0-or-later
"""Question frames, small talk and fact tables of the generator (data only).

A topic is a list of question frames and a list of answer frames (one full
sentence each); the bare answer is in the field {v}.  generate.py fills in the
fields from the fact tables.
"""

# --- fact tables: (key, value) ----------------------------------------------

COLOUR_OF = [("the sky", "blue"), ("grass", "green"), ("snow", "white"), ("the sun", "yellow"),
             ("a lemon", "yellow"), ("a banana", "yellow"), ("a strawberry", "red"),
             ("blood", "red"), ("coal", "black"), ("milk", "white"), ("a carrot", "orange"),
             ("chocolate", "brown"), ("a leaf", "green"), ("the night", "black"),
             ("a frog", "green"), ("a tomato", "red"), ("an orange", "orange"),
             ("a pig", "pink"), ("a crow", "black"), ("a swan", "white"), ("the sea", "blue"),
             ("a cucumber", "green"), ("an elephant", "grey"), ("butter", "yellow")]

OPPOSITES = [("hot", "cold"), ("big", "small"), ("tall", "short"), ("fast", "slow"),
             ("happy", "sad"), ("day", "night"), ("up", "down"), ("left", "right"),
             ("open", "closed"), ("full", "empty"), ("old", "new"), ("light", "dark"),
             ("wet", "dry"), ("hard", "soft"), ("good", "bad"), ("early", "late"),
             ("loud", "quiet"), ("rich", "poor"), ("strong", "weak"), ("clean", "dirty"),
             ("high", "low"), ("near", "far"), ("black", "white"), ("first", "last"),
             ("easy", "difficult"), ("in", "out"), ("yes", "no"), ("begin", "end"),
             ("thick", "thin"), ("true", "false"), ("win", "lose"),
             ("buy", "sell"), ("awake", "asleep"), ("above", "below"), ("inside", "outside"),
             ("sharp", "blunt"), ("wide", "narrow"), ("friend", "enemy"), ("summer", "winter")]

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August",
          "September", "October", "November", "December"]
SEASON_OF = [("December", "winter"), ("January", "winter"), ("February", "winter"),
             ("March", "spring"), ("April", "spring"), ("May", "spring"), ("June", "summer"),
             ("July", "summer"), ("August", "summer"), ("September", "autumn"),
             ("October", "autumn"), ("November", "autumn")]
ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth",
            "ninth", "tenth", "eleventh", "twelfth"]

SOUNDS = [("dog", "woof"), ("cat", "meow"), ("cow", "moo"), ("sheep", "baa"), ("duck", "quack"),
          ("pig", "oink"), ("horse", "neigh"), ("hen", "cluck"), ("frog", "croak"),
          ("lion", "roar"), ("bee", "buzz"), ("mouse", "squeak"), ("owl", "hoot"),
          ("snake", "hiss"), ("crow", "caw"), ("wolf", "howl"), ("bird", "tweet"),
          ("donkey", "hee-haw")]
YOUNG = [("dog", "puppy"), ("cat", "kitten"), ("cow", "calf"), ("sheep", "lamb"),
         ("duck", "duckling"), ("pig", "piglet"), ("horse", "foal"), ("hen", "chick"),
         ("bear", "cub"), ("goat", "kid"), ("frog", "tadpole"), ("goose", "gosling"),
         ("swan", "cygnet"), ("deer", "fawn")]
LEGS = [("dog", "four"), ("cat", "four"), ("cow", "four"), ("horse", "four"), ("bird", "two"),
        ("duck", "two"), ("hen", "two"), ("spider", "eight"), ("ant", "six"), ("bee", "six"),
        ("beetle", "six"), ("person", "two"), ("snake", "no"), ("fish", "no"), ("worm", "no"),
        ("mouse", "four"), ("lion", "four"), ("elephant", "four")]
LIVES_IN = [("bird", "nest"), ("bee", "hive"), ("fox", "den"), ("horse", "stable"),
            ("dog", "kennel"), ("spider", "web"), ("pig", "sty"), ("rabbit", "burrow"),
            ("fish", "pond"), ("hen", "coop"), ("bear", "cave"), ("whale", "ocean"),
            ("cow", "barn"), ("king", "palace")]
EATS = [("rabbit", "carrots"), ("cow", "grass"), ("mouse", "cheese"), ("squirrel", "nuts"),
        ("monkey", "bananas"), ("bear", "honey"), ("cat", "fish"), ("horse", "hay"),
        ("bird", "seeds"), ("dog", "bones"), ("panda", "bamboo"), ("frog", "flies")]
KIND_OF = [("apple", "fruit"), ("banana", "fruit"), ("pear", "fruit"), ("cherry", "fruit"),
           ("carrot", "vegetable"), ("onion", "vegetable"), ("potato", "vegetable"),
           ("cabbage", "vegetable"), ("dog", "animal"), ("cow", "animal"), ("lion", "animal"),
           ("rabbit", "animal"), ("rose", "flower"), ("tulip", "flower"), ("daisy", "flower"),
           ("hammer", "tool"), ("saw", "tool"), ("spade", "tool"), ("chair", "piece of furniture"),
           ("table", "piece of furniture"), ("shirt", "piece of clothing"),
           ("coat", "piece of clothing"), ("oak", "tree"), ("pine", "tree"), ("red", "colour"),
           ("green", "colour"), ("Monday", "day"), ("Friday", "day"), ("June", "month"),
           ("May", "month"), ("flute", "musical instrument"), ("violin", "musical instrument"),
           ("eagle", "bird"), ("owl", "bird"), ("salmon", "fish"), ("ant", "insect"),
           ("bee", "insect")]

CAPITALS = [("France", "Paris"), ("Germany", "Berlin"), ("Italy", "Rome"), ("Spain", "Madrid"),
            ("England", "London"), ("Portugal", "Lisbon"), ("Greece", "Athens"),
            ("Austria", "Vienna"), ("Poland", "Warsaw"), ("Norway", "Oslo"),
            ("Sweden", "Stockholm"), ("Denmark", "Copenhagen"), ("Finland", "Helsinki"),
            ("Ireland", "Dublin"), ("Scotland", "Edinburgh"), ("Japan", "Tokyo"),
            ("China", "Beijing"), ("Russia", "Moscow"), ("Egypt", "Cairo"),
            ("Canada", "Ottawa"), ("Hungary", "Budapest"), ("Belgium", "Brussels"),
            ("Cuba", "Havana"), ("Kenya", "Nairobi")]

PLURALS = [("cat", "cats"), ("dog", "dogs"), ("book", "books"), ("tree", "trees"),
           ("house", "houses"), ("box", "boxes"), ("fox", "foxes"), ("bus", "buses"),
           ("dish", "dishes"), ("baby", "babies"), ("city", "cities"), ("lady", "ladies"),
           ("child", "children"), ("man", "men"), ("woman", "women"), ("mouse", "mice"),
           ("goose", "geese"), ("foot", "feet"), ("tooth", "teeth"), ("sheep", "sheep"),
           ("fish", "fish"), ("leaf", "leaves"), ("knife", "knives"), ("wolf", "wolves"),
           ("car", "cars"), ("apple", "apples"), ("bird", "birds"), ("flower", "flowers"),
           ("watch", "watches"), ("berry", "berries"), ("star", "stars"), ("ship", "ships")]
PASTS = [("go", "went"), ("see", "saw"), ("eat", "ate"), ("run", "ran"), ("sing", "sang"),
         ("swim", "swam"), ("take", "took"), ("give", "gave"), ("find", "found"),
         ("make", "made"), ("play", "played"), ("walk", "walked"), ("jump", "jumped"),
         ("come", "came"), ("write", "wrote"), ("buy", "bought"), ("think", "thought"),
         ("help", "helped"), ("sleep", "slept"), ("fly", "flew"), ("know", "knew"),
         ("say", "said"), ("drink", "drank"), ("look", "looked")]
COMPARATIVES = [("big", "bigger"), ("small", "smaller"), ("tall", "taller"), ("fast", "faster"),
                ("slow", "slower"), ("old", "older"), ("young", "younger"), ("hot", "hotter"),
                ("cold", "colder"), ("good", "better"), ("bad", "worse"), ("happy", "happier"),
                ("long", "longer"), ("strong", "stronger")]

USED_FOR = [("cut bread", "knife"), ("write a letter", "pen"), ("dig a hole", "spade"),
            ("eat soup", "spoon"), ("tell the time", "clock"), ("open a lock", "key"),
            ("sweep the floor", "broom"), ("hit a nail", "hammer"), ("keep dry in the rain", "umbrella"),
            ("cross a river", "bridge"), ("cut paper", "pair of scissors"), ("sew a button", "needle"),
            ("read at night", "lamp"), ("brush your teeth", "toothbrush"), ("sleep", "bed"),
            ("ring at the door", "bell"), ("climb a wall", "ladder"), ("carry water", "bucket")]
SENSES = [("see", "eyes"), ("hear", "ears"), ("smell", "nose"), ("taste", "tongue"),
          ("touch", "hands"), ("walk", "feet"), ("chew", "teeth"), ("think", "brain")]
SIDES = [("triangle", "three"), ("square", "four"), ("pentagon", "five"), ("hexagon", "six"),
         ("rectangle", "four"), ("octagon", "eight")]
AMOUNTS = [("days are in a week", "seven", "There are seven days in a week."),
           ("months are in a year", "twelve", "There are twelve months in a year."),
           ("hours are in a day", "24", "There are 24 hours in a day."),
           ("minutes are in an hour", "60", "There are 60 minutes in an hour."),
           ("seconds are in a minute", "60", "There are 60 seconds in a minute."),
           ("seasons are in a year", "four", "There are four seasons in a year."),
           ("fingers are on one hand", "five", "There are five fingers on one hand."),
           ("wheels does a car have", "four", "A car has four wheels."),
           ("wheels does a bicycle have", "two", "A bicycle has two wheels."),
           ("letters are in the alphabet", "26", "There are 26 letters in the alphabet."),
           ("eyes do you have", "two", "A person has two eyes."),
           ("legs does a table have", "four", "A table has four legs.")]
JOBS = [("bakes bread", "baker"), ("grows corn", "farmer"), ("teaches children", "teacher"),
        ("helps sick people", "doctor"), ("puts out fires", "firefighter"),
        ("sails a ship", "sailor"), ("flies a plane", "pilot"), ("paints pictures", "painter"),
        ("makes clothes", "tailor"), ("catches fish", "fisher"), ("cooks meals", "cook"),
        ("writes books", "writer"), ("brings letters", "postman"), ("builds houses", "builder")]
MADE_OF = [("window", "glass"), ("book", "paper"), ("snowman", "snow"), ("bread", "flour"),
           ("cheese", "milk"), ("candle", "wax"), ("wall", "bricks"), ("jumper", "wool"),
           ("coin", "metal"), ("shoe", "leather"), ("door", "wood"), ("bottle", "glass")]
GENERAL = [
    (["Where does the sun rise?", "In which direction does the sun rise?"],
     "The sun rises in the east.", "east"),
    (["Where does the sun set?", "In which direction does the sun set?"],
     "The sun sets in the west.", "west"),
    (["What do bees make?", "What do we get from bees?"], "Bees make honey.", "honey"),
    (["What is frozen water called?", "What do we call frozen water?"],
     "Frozen water is called ice.", "ice"),
    (["What falls from the clouds?", "What comes out of dark clouds?"],
     "Rain falls from the clouds.", "rain"),
    (["What do plants need to grow?", "What does a plant need?"],
     "Plants need water and light to grow.", "water and light"),
    (["What shines at night?", "What can you see in the sky at night?"],
     "The moon and the stars shine at night.", "the moon"),
    (["What is the biggest animal?", "Which animal is the biggest?"],
     "The blue whale is the biggest animal.", "the blue whale"),
    (["Which animal has a long neck?", "What animal has a very long neck?"],
     "The giraffe has a long neck.", "the giraffe"),
    (["Which animal has a trunk?", "What animal has a trunk?"],
     "The elephant has a trunk.", "the elephant"),
    (["What do we drink from?", "What do you drink tea from?"],
     "We drink tea from a cup.", "a cup"),
    (["What do hens lay?", "What do we get from hens?"], "Hens lay eggs.", "eggs"),
    (["What do we get from cows?", "What do cows give us?"], "Cows give us milk.", "milk"),
    (["What do we get from sheep?", "Where does wool come from?"],
     "Wool comes from sheep.", "wool"),
    (["Can a fish walk?", "Is a fish able to walk?"], "No, a fish cannot walk. It swims.", "no"),
    (["Can a bird fly?", "Are most birds able to fly?"], "Yes, most birds can fly.", "yes"),
    (["Is fire hot?", "Is a fire hot or cold?"], "Fire is hot.", "hot"),
    (["Is ice cold?", "Is ice hot or cold?"], "Ice is cold.", "cold"),
    (["What planet do we live on?", "Which planet is our home?"],
     "We live on the planet Earth.", "Earth"),
    (["What goes around the Earth?", "What moves around the Earth?"],
     "The moon goes around the Earth.", "the moon"),
    (["What do you get when you mix blue and yellow?", "Which colour is made from blue and yellow?"],
     "Blue and yellow make green.", "green"),
    (["What do you get when you mix red and white?", "Which colour is made from red and white?"],
     "Red and white make pink.", "pink"),
    (["What do you get when you mix red and yellow?", "Which colour is made from red and yellow?"],
     "Red and yellow make orange.", "orange"),
    (["What meal do we eat in the morning?", "What is the first meal of the day?"],
     "We eat breakfast in the morning.", "breakfast"),
    (["What meal do we eat in the evening?", "What is the last meal of the day?"],
     "We eat dinner in the evening.", "dinner"),
    (["Who is the mother of my mother?", "What do you call the mother of your mother?"],
     "The mother of your mother is your grandmother.", "grandmother"),
    (["Who is the brother of my father?", "What do you call the brother of your father?"],
     "The brother of your father is your uncle.", "uncle"),
    (["What is the coldest season?", "Which season is the coldest?"],
     "Winter is the coldest season.", "winter"),
    (["What is the warmest season?", "Which season is the warmest?"],
     "Summer is the warmest season.", "summer"),
]

# --- topics over one table: (table, question frames, answer frames) ---------

TABLE_TOPICS = [
    (COLOUR_OF,
     ["What colour is {k}?", "Which colour is {k}?", "What is the colour of {k}?",
      "Tell me the colour of {k}.", "Can you tell me what colour {k} is?"],
     ["{K} is {v}."]),
    (OPPOSITES,
     ["What is the opposite of {k}?", "Give me the opposite of {k}.", "What is the opposite of the word {k}?",
      "Which word is the opposite of {k}?", "Tell me the opposite of {k}."],
     ["The opposite of {k} is {v}."]),
    (SEASON_OF,
     ["Which season is {k} in?", "In which season is {k}?", "What season is it in {k}?",
      "Is {k} in spring, summer, autumn or winter?"],
     ["{k} is in {v}."]),
    (SOUNDS,
     ["What sound does a {k} make?", "What does a {k} say?", "Which sound does a {k} make?",
      "How does a {k} sound?"],
     ["A {k} says {v}."]),
    (YOUNG,
     ["What is a young {k} called?", "What do you call a baby {k}?", "What is the name for a young {k}?",
      "How do we call a very young {k}?"],
     ["A young {k} is called a {v}."]),
    (LEGS,
     ["How many legs does a {k} have?", "How many legs has a {k}?", "Tell me how many legs a {k} has."],
     ["A {k} has {v} legs."]),
    (LIVES_IN,
     ["Where does a {k} live?", "What is the home of a {k}?", "What kind of home does a {k} have?"],
     ["A {k} lives in a {v}."]),
    (EATS,
     ["What does a {k} like to eat?", "What does a {k} eat?", "What is the favourite food of a {k}?"],
     ["A {k} likes to eat {v}."]),
    (CAPITALS,
     ["What is the capital of {k}?", "Which city is the capital of {k}?", "Name the capital of {k}.",
      "Tell me the capital of {k}.", "What is the name of the capital of {k}?"],
     ["The capital of {k} is {v}."]),
    ([(v, k) for k, v in CAPITALS],
     ["{k} is the capital of which country?", "Which country has {k} as its capital?",
      "In which country is {k}?"],
     ["{k} is the capital of {v}."]),
    (PLURALS,
     ["What is the plural of {k}?", "What is more than one {k} called?", "Give me the plural of {k}.",
      "One {k}, two what?"],
     ["The plural of {k} is {v}."]),
    (PASTS,
     ["What is the past tense of {k}?", "Give me the past tense of {k}.", "Today I {k}. What about yesterday?",
      "What is the past of {k}?"],
     ["The past tense of {k} is {v}."]),
    (COMPARATIVES,
     ["What is the comparative of {k}?", "What word means more {k}?", "Give me the comparative of {k}."],
     ["The comparative of {k} is {v}."]),
    (USED_FOR,
     ["What do you use to {k}?", "What do I need to {k}?", "Which thing helps you to {k}?"],
     ["You use a {v} to {k}."]),
    (SENSES,
     ["What do we {k} with?", "Which part of the body do we {k} with?", "What do you use to {k} things?"],
     ["We {k} with our {v}."]),
    (SIDES,
     ["How many sides does a {k} have?", "How many sides has a {k}?", "How many corners does a {k} have?"],
     ["A {k} has {v} sides."]),
    (JOBS,
     ["Who {k}?", "What do you call a person who {k}?", "What is the job of a person who {k}?"],
     ["A {v} {k}."]),
    (MADE_OF,
     ["What is a {k} made of?", "What do you need to make a {k}?", "Out of what is a {k} made?"],
     ["A {k} is made of {v}."]),
]

# --- numbers: question frames; {a} and {b} are the operands ------------------

ADD = ["{a} + {b} =", "What is {a} + {b}?", "What is {a} plus {b}?", "{a} + {b} = ?", "{a} + {b}",
       "How much is {a} plus {b}?", "How much is {a} + {b}?", "Add {a} and {b}.",
       "What is the sum of {a} and {b}?", "Please add {a} and {b}.", "Calculate {a} + {b}.",
       "Can you tell me what {a} plus {b} is?", "Work out {a} plus {b}."]
SUB = ["{a} - {b} =", "What is {a} - {b}?", "What is {a} minus {b}?", "{a} - {b} = ?", "{a} - {b}",
       "How much is {a} minus {b}?", "How much is {a} - {b}?", "Take {b} away from {a}.",
       "What is the difference between {a} and {b}?", "Subtract {b} from {a}.",
       "Calculate {a} - {b}.", "Can you tell me what {a} minus {b} is?", "Work out {a} minus {b}."]
MUL = ["{a} x {b} =", "What is {a} x {b}?", "What is {a} times {b}?", "{a} x {b} = ?", "{a} x {b}",
       "How much is {a} times {b}?", "Multiply {a} by {b}.", "What do you get if you multiply {a} by {b}?",
       "Calculate {a} x {b}.", "Work out {a} times {b}."]
BIGGER = ["Which is bigger, {a} or {b}?", "Which number is bigger, {a} or {b}?", "Is {a} or {b} bigger?",
          "Which is more, {a} or {b}?", "Which number is larger: {a} or {b}?"]
SMALLER = ["Which is smaller, {a} or {b}?", "Which number is smaller, {a} or {b}?", "Is {a} or {b} smaller?",
           "Which is less, {a} or {b}?"]
IS_BIGGER = ["Is {a} bigger than {b}?", "Is {a} more than {b}?", "Is {a} larger than {b}?"]
AFTER = ["What number comes after {a}?", "Which number comes after {a}?", "What comes after {a}?",
         "What is the next number after {a}?", "Which number follows {a}?"]
BEFORE = ["What number comes before {a}?", "Which number comes before {a}?", "What comes before {a}?",
          "Which number is just before {a}?"]
COUNT = ["Count from {a} to {b}.", "Please count from {a} to {b}.", "Can you count from {a} to {b}?",
         "Say the numbers from {a} to {b}."]
NEXT = ["What comes next: {list}?", "What is the next number: {list}?", "Which number comes next: {list}?",
        "Continue: {list}", "Go on: {list}"]
DOUBLE = ["What is double {a}?", "What is twice {a}?", "How much is two times {a}?"]
HALF = ["What is half of {a}?", "How much is half of {a}?"]
PARITY = ["Is {a} even or odd?", "Is {a} an even number or an odd number?", "Is the number {a} odd or even?"]
LARGEST = ["Which is the largest: {list}?", "What is the biggest of these numbers: {list}?",
           "Find the largest number: {list}."]
SORT = ["Sort these numbers: {list}.", "Put these numbers in order: {list}.", "Sort from small to large: {list}."]

GAIN = ["{name} has {a} {things}. {He} finds {b} more. How many {things} does {name} have now?",
        "{name} had {a} {things} and got {b} more. How many {things} does {he} have now?",
        "There are {a} {things} in the basket. {name} puts in {b} more. How many {things} are there now?",
        "{name} has {a} {things} and {friend} has {b} {things}. How many {things} do they have together?",
        "{name} picks {a} {things} in the morning and {b} in the evening. How many {things} is that?"]
LOSS = ["{name} has {a} {things}. {He} gives {b} to {friend}. How many {things} does {name} have left?",
        "{name} had {a} {things} and lost {b}. How many {things} does {he} have now?",
        "There are {a} {things} on the table. {name} takes {b} away. How many {things} are left?",
        "{name} has {a} {things} and eats {b} of them. How many {things} are left?"]
COUNTED = ["apples", "nuts", "eggs", "plums", "cakes", "pears", "berries", "biscuits"]
NUMBER_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
                "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen",
                "eighteen", "nineteen", "twenty"]

# --- small text about people: (fact frames, question frames, answer frames) --

PETS = ["dog", "cat", "rabbit", "pony", "parrot", "hamster", "goldfish", "turtle", "mouse", "duck"]
TOWN_PLACES = ["school", "park", "market", "library", "beach", "farm", "museum", "garden", "bakery", "lake"]
LIKED = ["apples", "cheese", "soup", "honey", "bread", "cake", "plums", "nuts", "rice", "pears"]
HOUSE_COLOURS = ["red", "blue", "green", "yellow", "white", "brown", "pink", "grey"]

PERSON_FACTS = [
    (PETS,
     ["{n} has a {v}.", "{n} owns a {v}.", "The pet of {n} is a {v}."],
     ["What pet does {n} have?", "Which animal does {n} have?", "What does {n} own?"],
     ["{n} has a {v}."],
     ["Who has a {v}?", "Who owns the {v}?"]),
    (TOWN_PLACES,
     ["{n} went to the {v}.", "{n} walked to the {v}.", "{n} is at the {v}."],
     ["Where is {n}?", "Where did {n} go?", "In which place is {n}?"],
     ["{n} is at the {v}."],
     ["Who is at the {v}?", "Who went to the {v}?"]),
    (LIKED,
     ["{n} likes {v}.", "{n} loves {v}.", "The favourite food of {n} is {v}."],
     ["What does {n} like?", "What is the favourite food of {n}?", "What does {n} like to eat?"],
     ["{n} likes {v}."],
     ["Who likes {v}?", "Who loves {v}?"]),
    (HOUSE_COLOURS,
     ["{n} lives in a {v} house.", "The house of {n} is {v}.", "{n} has a {v} house."],
     ["What colour is the house of {n}?", "In which house does {n} live?", "Which colour is the house of {n}?"],
     ["The house of {n} is {v}."],
     ["Who lives in the {v} house?", "Who has a {v} house?"]),
]

STORY_QUESTIONS = {
    "name": ["Who is the story about?", "What is the name of the hero?", "Who is this story about?",
             "Who is the main person in the story?"],
    "kind": ["What kind of creature is {name}?", "Who or what is {name}?", "What is {name}?"],
    "friend": ["Who is {friend}?", "What is {friend}?", "What kind of creature is {friend}?"],
    "thing": ["What colour is the {thing}?", "Which colour is the {thing}?"],
}
ASK_STORY = ["Tell me a story about a {kind}.", "Please tell me a story about a {kind}.",
             "Write a short story about a {kind}.", "Can you tell me a story about a {kind}?",
             "I would like to hear a story about a {kind}.", "Make up a story about a {kind}.",
             "Tell me a story about a {kind} called {name}.", "Write a story about {name} the {kind}.",
             "Please write a story about a {adj} {kind}.", "Do you know a story about a {kind}?"]
ASK_ANY_STORY = ["Tell me a story.", "Please tell me a story.", "Can you tell me a story?",
                 "Write a short story.", "I would like to hear a story.", "Tell me a bedtime story."]

# --- small talk: (what the user may say, what the model answers) -------------

SMALL_TALK = [
    (["Hello!", "Hello.", "Hi!", "Hi there!", "Hello there.", "Good day!", "Hey!", "Hi"],
     ["Hello! How can I help you?"]),
    (["Good morning!", "Good morning."], ["Good morning! How can I help you?"]),
    (["Good evening!", "Good evening."], ["Good evening! How can I help you?"]),
    (["Good night!", "Good night.", "I am going to bed."], ["Good night! Sleep well."]),
    (["How are you?", "How are you today?", "How do you do?", "Are you well?", "How is it going?"],
     ["I am fine, thank you. How are you?"]),
    (["I am fine.", "I am fine, thank you.", "I am well, thanks.", "I feel good today."],
     ["I am glad to hear that."]),
    (["I am sad.", "I feel sad today.", "I had a bad day."],
     ["I am sorry to hear that. I hope that tomorrow is a better day."]),
    (["I am happy.", "I am so happy today!", "I had a good day."], ["That is wonderful!"]),
    (["I am tired.", "I feel tired.", "I am so tired today."],
     ["Then you should rest a little."]),
    (["I am hungry.", "I am very hungry.", "I want to eat."], ["Then it is time to eat something good."]),
    (["I am bored.", "I have nothing to do.", "This is boring."], ["Shall I tell you a story?"]),
    (["Thank you!", "Thank you.", "Thanks!", "Thanks a lot.", "Thank you very much.", "That was helpful."],
     ["You are welcome!"]),
    (["Goodbye!", "Goodbye.", "Bye!", "Bye bye!", "See you later.", "I have to go now.", "See you tomorrow!"],
     ["Goodbye! Have a nice day."]),
    (["Who are you?", "What are you?", "Tell me about yourself.", "Can you introduce yourself?",
      "Please introduce yourself.", "Are you a robot?", "Are you a person?"],
     ["I am a very small language model."]),
    (["What is your name?", "What are you called?", "Do you have a name?", "What should I call you?",
      "May I ask your name?"],
     ["My name is Prima Demo."]),
    (["What can you do?", "What can you help me with?", "How can you help me?", "What do you know?",
      "What can I ask you?"],
     ["I can tell stories, answer simple questions and add small numbers."]),
    (["How old are you?", "What is your age?", "When were you born?"],
     ["I am a computer program, so I have no age."]),
    (["Where do you live?", "Where are you?", "Where is your home?"], ["I live inside a computer."]),
    (["Do you like music?", "Do you like to sing?"], ["I cannot hear music, but I like the idea of it."]),
    (["Do you like stories?", "Do you know any stories?"], ["Yes, I like stories very much."]),
    (["What is your favourite colour?", "Which colour do you like best?", "What colour do you like?"],
     ["I like blue, because the sky is blue."]),
    (["What is your favourite animal?", "Which animal do you like best?", "What animal do you like?"],
     ["I like the fox, because it is clever."]),
    (["Are you clever?", "Are you smart?", "Do you know everything?"],
     ["I am very small, so I know only a little."]),
    (["Can you help me?", "I need help.", "Please help me.", "Could you help me, please?"],
     ["Of course. What do you need?"]),
    (["I am sorry.", "Sorry!", "I made a mistake."], ["That is all right."]),
    (["You are nice.", "I like you.", "You are very kind.", "You are great!"],
     ["Thank you, that is kind of you."]),
    (["That is wrong.", "You made a mistake.", "That is not right."],
     ["I am sorry. I am a small model and make mistakes."]),
    (["Well done!", "Good answer!", "That is right.", "Very good!", "Correct!"], ["Thank you!"]),
    (["Tell me a joke.", "Do you know a joke?", "Make me laugh.", "Please tell me a joke."],
     ["Why did the duck cross the road? It wanted to see the pond."]),
    (["What time is it?", "Can you tell me the time?", "What day is it today?"],
     ["I do not have a clock, so I cannot know."]),
    (["What is the weather like?", "Is it raining?", "Will it rain today?"],
     ["I cannot look outside, so I do not know."]),
    (["Do you sleep?", "Are you tired?", "Do you dream?"], ["No, a computer program does not sleep."]),
    (["Do you have friends?", "Are you my friend?", "Will you be my friend?"],
     ["I am happy to be your friend."]),
    (["Today is my birthday.", "It is my birthday!", "I have my birthday today."], ["Happy birthday!"]),
    (["I lost my keys.", "I cannot find my book.", "I lost my hat."],
     ["I am sorry. Look slowly in every room."]),
    (["It is raining.", "It rains all day.", "The weather is bad."],
     ["Then it is a good day to stay inside and read."]),
    (["It is snowing!", "There is snow outside."], ["How nice! You can build a snowman."]),
    (["I like books.", "I love to read.", "I am reading a book."], ["Reading is a fine thing."]),
    (["I have a dog.", "I have a new dog.", "We have a little dog."], ["How nice! What is the dog called?"]),
    (["I have a cat.", "I have a new cat.", "We have a little cat."], ["How nice! What is the cat called?"]),
]

INTRODUCE = ["My name is {n}.", "I am {n}.", "Hello, my name is {n}.", "Hi, I am {n}.", "You can call me {n}."]
ASK_NAME = ["What is my name?", "Do you remember my name?", "Who am I?", "What am I called?"]
FAVOURITE = [("colour", ["red", "blue", "green", "yellow", "white", "brown", "pink", "black"]),
             ("animal", ["fox", "rabbit", "horse", "owl", "cat", "dog", "bear", "duck"]),
             ("food", ["soup", "bread", "cake", "cheese", "rice", "honey", "pie"]),
             ("season", ["spring", "summer", "autumn", "winter"]),
             ("day", ["Monday", "Friday", "Saturday", "Sunday"])]
TELL_FAVOURITE = ["My favourite {what} is {v}.", "I like {v}. It is my favourite {what}.",
                  "{V} is my favourite {what}."]
ASK_FAVOURITE = ["What is my favourite {what}?", "Which {what} do I like best?",
                 "Do you remember my favourite {what}?"]
ECHO = ["Say: {t}", "Repeat after me: {t}", "Please say: {t}", "Repeat these words: {t}"]
ECHO_WORDS = ["sun", "moon", "tree", "river", "stone", "apple", "bird", "house", "rain", "snow", "star",
              "cloud", "fish", "boat", "bread", "flower", "horse", "garden", "light", "winter"]

FULL_SYSTEM = ["You are a helpful assistant.", "You are a kind teacher.", "You are a friendly helper.",
               "Answer in one sentence.", "Answer in a full sentence.", "You are a helpful assistant. Answer politely.",
               "You are a small model. Answer simply.", "Be polite and helpful.",
               "You talk with children. Use easy words.", "You are a patient teacher. Answer in one short sentence."]
SHORT_SYSTEM = ["Answer with one word or number only.", "Answer as briefly as you can.",
                "Give only the answer.", "Answer with one word.", "Give the answer only, without a sentence.",
                "You are a quiz machine. Give only the answer."]
