"""What this machine lacks for sandboxes: facts gathered, checks that judge them, and the fix for each.

`facts` and `probe` look at the machine, `checks` judges plain values, `readiness` picks what stands in the way of a start.
Nothing here changes the machine.
"""
