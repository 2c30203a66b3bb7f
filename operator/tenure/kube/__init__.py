"""The wire: requests, pages, watches, server-side apply and typed errors. The only room that imports an HTTP client."""
