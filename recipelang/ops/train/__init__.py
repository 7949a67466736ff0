"""Operations of this group, one file a verb."""
