"""A study: from a question to a table one can publish.

A study is a run × rows × seeds. Its parts, in the order in which data pass through them:

| module | does |
| --- | --- |
| plan | study file → cells, one run config each |
| runner, claims, cell, live | trains what is missing, several workers at once, and shows progress |
| search, trace, importance | chooses hyper-parameters on validation, the same budget for every row |
| folder, collect | what is stored of finished cells, and reading it back |
| analysis, comparisons | estimates, intervals, comparisons with the reference |
| tables, latex | printed tables, LaTeX, CSV |
| plots, pictures, findings, facts, methods, markdown, report | plots and the report |
| data_sets | what joins the data sets of a study: mean ranks, the Friedman test, a table |
| verify | whether the tables follow from the stored scores, and a cell run again from its config |
| estimate, template, commands | cost in advance; a study file to begin with; the command line |
"""
