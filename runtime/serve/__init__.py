"""gar-serve: regions over HTTP, for planners in any language and for people with a browser.

One process, one `Gar`, one scheduler. A request goes through `guard` (who asks, how much, for how long), `routes` and
`chat_completions` (what is asked), `questions` (pictures and regions, in threads), `answers` (the scheduler's answers
in the event loop) and back.
"""
