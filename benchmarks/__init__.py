"""The CPU cost of a chat client in its own process: chatscope compared with its peers and with the lower bound.

What is measured
    The CPU time (user and system) of the client's process, from `time.process_time`. A warm-up opens the connections
    and loads the code first. Every contender runs in its own process, pinned to one core. All of them talk to the same
    local server with precomputed responses, pinned to another core if there is one. Samples of the contenders alternate
    (A B C A B C ...), so a noisy minute affects all of them. The tables show medians and ranges.

    Every contender does the same work: it encodes the same request, reads every token's text from the same event
    stream, joins the text and reads the usage. Text and usage are compared with what was sent. Each peer gets its
    fastest reasonable configuration: no connection limit, no retries, and orjson if the caller decodes the JSON.

    - stream: whole streamed responses, all started at once. Each token is a separate HTTP chunk and a separate write of
      the server. The figure is the client's CPU time, including the start and end of the responses, per token.
    - burst: streamed responses that the server sends in one write, still with one HTTP chunk per token.
    - plain: requests without streaming, a fixed number at a time, on kept connections.
    - memory: growth of the resident size per stream, with 1,000 open streams that have delivered some tokens.
    - cancel: the time from the cancellation until the server sees the connection closed, one stream at a time.
    - import: CPU time of a fresh interpreter that imports the package, minus that of one that imports nothing.

    chatscope appears twice. `chatscope-task` is a task from `submit_task` to `get_result`, with its own cancel scope,
    deadlines, time stamps and price. `chatscope-client` is `ChatClient` alone. `floor` is not a client: it is a bare
    protocol (on trio, a bare socket) with llhttp and msgspec, without timeouts, errors or limits.

What is not measured
    Latency over a network, the model, HTTP/2, compression, proxies, and time lost to other tasks of the same loop. A
    client that cannot keep up with the stream scenario is marked: it finds several tokens in each read, which flatters
    it. On the loopback interface, a client's `send` also pays for waking the server, unlike with a network card. A
    client that sends several requests in quick succession wakes the server only once. A client that is so fast that the
    server never sleeps (the floor) hardly pays for it.
    The contenders do not offer the same features either. The raw ones have no retries, typed errors, truncation check
    or time stamps, and no timeouts except in `aiohttp`. `aiohttp` limits silence to 60 s, as chatscope does by default;
    `aiohttp-bare` does not. If the system allows it, the server and the clients run at a higher priority.

Absolute figures mean little on another machine. Compare the ratios of contenders in one run.
"""
