"""Chat completions in cancel scopes: the public names of chatscope."""
