"""Reports as pages: one HTML file each, with charts by plotly, which loads nothing from elsewhere.

Here: how a report looks in a browser. Not here: computing figures (`chatscope.load.metrics`).
"""
