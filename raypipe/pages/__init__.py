"""Pages that people look at: report, explanation of one mask, review queue; and what feeds them."""
