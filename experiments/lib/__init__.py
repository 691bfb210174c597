"""What the scripts of `experiments` are made of; nothing here is run, or knows a script.

`questions` puts a question to many arms, at the learning rates that `rates` chooses, and `tables`
reads what was found; `knock_outs` and `costs` measure what was trained; `sentences` and `bootstrap`
score texts. `protocols` and `report_pictures` are lists that grow. The others are parts of the
script that their names begin with.
"""
