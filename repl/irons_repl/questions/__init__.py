"""Questions of mode `ask` in the prompt: a line above the input, and a list that a chord opens and one letter answers.

`asked` shows them and takes keys; what keys mean and what is shown of a question is `irons.asking`, as in every face.
Nothing of it is imported before the first prompt is drawn, nor where no sandbox is in mode `ask`.
"""
