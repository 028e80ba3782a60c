"""Streams: a plan of steps over a manifest's rows, run on Ray Data so that no row is lost or computed twice."""
