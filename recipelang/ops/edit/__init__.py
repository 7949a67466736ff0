"""Operations that edit one model, one file a verb: cast it, cut it, apply an adapter to it."""
