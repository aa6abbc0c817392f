"""Plug-ins for applications that speak Morango."""
