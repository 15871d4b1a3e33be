"""Bytes of a unified diff → files, hunks, line numbers; and where a finding may be anchored."""
