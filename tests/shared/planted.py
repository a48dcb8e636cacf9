"""Labels of strangers that set `window.planted` in a page that does not escape what it shows."""

PLANTED = ("<script>window.planted = 1</script>", '<img src=x onerror="window.planted = 1">',
           '"><svg onload="window.planted = 1"></svg>')

IN_JSON = "</script><script>window.planted = 1</script>"
"""Ends a page's own script."""
