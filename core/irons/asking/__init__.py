"""Questions of mode `ask` as every face shows and answers them: what keys mean, what is shown, and who follows the open questions.

The prompt, `audit watch`, xonsh and the pane of `irons ask` draw and read keys themselves, and hand both to what is here.
Nothing here touches a terminal, and nothing here decides what is asked.
"""
