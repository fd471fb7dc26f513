"""Requests out, answers in, decisions between: nothing here touches a socket, a clock or chance."""
