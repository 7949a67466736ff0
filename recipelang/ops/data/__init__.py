"""Operations on datasets, one file a verb: read, mix, split."""
