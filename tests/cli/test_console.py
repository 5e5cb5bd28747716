"""Where messages go."""

import logging

from terralean.cli.console import configure_logging


def test_in_a_log_file_each_message_is_one_line(capfd):
    configure_logging(False)
    long = "scene.tif: 500 x 600 px, " + "a word " * 60 + "[bold]"
    logging.getLogger("terralean.mapping").info("%s", long)
    logging.getLogger("terralean.mapping").debug("not without --verbose")
    assert capfd.readouterr().err == f"INFO     {long}\n"
