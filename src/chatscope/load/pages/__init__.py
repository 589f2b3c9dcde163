"""Reports as pages: one file of HTML each, which plotly draws and which loads nothing from elsewhere.

Here: what a report looks like in a browser. Not here: any figure's computation (`chatscope.load.metrics`).
"""
