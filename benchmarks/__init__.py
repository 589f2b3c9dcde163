"""What a chat client costs its own process: chatscope beside its peers, and beside the least that any client can spend.

What is measured
    The CPU time (user and system) of the client's process, from `time.process_time`, around a measured section that
    follows a warm-up: connections are open, code is loaded. Every contender runs in a process of its own, pinned to one
    core, against the same local server with precomputed replies, pinned to another core where there is one. Samples of
    the contenders take turns (A B C A B C ...), so that a noisy minute hits all of them. Shown are medians and ranges.

    Every contender does the same work: it encodes the same request, reads every token's text out of the same event
    stream, joins the text and reads the usage; text and usage are compared with what was sent. Each peer gets the
    fastest of its reasonable configurations: no connection limit, no retries, orjson where JSON is left to the caller.

    - stream: whole streamed replies, all begun at once, each token its own HTTP chunk and its own write of the server;
      the client's CPU, starting and ending the replies included, divided by the number of tokens.
    - burst: replies that the server sends whole in one write, each token still its own HTTP chunk.
    - plain: requests without streaming, so many at a time, the next one when one is done, on kept connections.
    - memory: how much the resident size grows by with 1,000 open streams that have delivered some tokens, per stream.
    - cancel: from the order to cancel until the server sees the connection closed, one stream at a time.
    - import: CPU time of a fresh interpreter that imports the package, less that of one that imports nothing.

    chatscope appears twice. `chatscope-task` is the whole life of a task, from `submit_task` to `get_result`, with its
    own cancel scope, deadlines, time stamps and price; `chatscope-client` is `ChatClient` alone. `floor` is no client:
    a bare protocol (on trio a bare socket), llhttp and msgspec, without timeouts, errors or limits.

What is not measured
    Latency over a network, the model, HTTP/2, compression, proxies; time lost to other tasks of the same loop. A client
    that cannot keep the pace of the stream scenario is marked: it finds several tokens in each read, which flatters it.
    On the loopback interface a client's `send` also wakes the server, which a network card would not ask of it. A
    client whose requests leave one right after the other wakes it once for all of them, and so does one that is so
    fast that the server has no time to fall asleep (the floor).
    Nor do the contenders offer the same: the raw ones have no retries, no typed errors, no truncation check and no time
    stamps, and but for `aiohttp` no timeouts. `aiohttp` bounds silence by 60 s, as chatscope does by default;
    `aiohttp-bare` does not. Where the system allows it, server and clients ask for a higher priority than others have.

Absolute figures are worth little elsewhere; the ratios of contenders in one run are what to look at.
"""
