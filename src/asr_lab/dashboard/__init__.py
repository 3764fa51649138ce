"""A local page over the outputs folder: a small server that reads files, and a front-end without a build step.

Reads what runs leave behind and nothing else: no scheduler, no network service, no checkpoint, and imports no torch.
Entry: `serve.serve`. docs/dashboard.md says what is served and to whom, docs/decisions/0012 why it is made so.
"""
