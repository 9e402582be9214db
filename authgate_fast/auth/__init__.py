"""Pure decisions: who is calling; one file per auth type behind one small interface."""
