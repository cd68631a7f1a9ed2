"""What legalizers and writers of several backends share."""
