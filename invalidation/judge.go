package invalidation

// Judge decides about b at s, which must be the position in b's log. For
// VerdictApply it returns the records that are new and the subscription after
// them; the caller makes both durable in one command.
func (s Subscription) Judge(b Batch) (Verdict, []Record, Subscription) {
	switch {
	case b.Publisher != s.Publisher.Cluster || b.Domain != s.Domain:
		return VerdictIgnore, nil, s
	case b.Epoch < s.Publisher.Epoch:
		return VerdictIgnore, nil, s
	case b.Epoch > s.Publisher.Epoch || s.State == StateReset:
		return VerdictReset, nil, s
	case b.After > s.Applied:
		return VerdictGap, nil, s
	}
	known := s.Applied - b.After // so many of b's records, or more, are behind s
	if known > uint64(len(b.Records)) {
		// Whole of it lies behind s: the chain at s can't be compared. If this is
		// another log, its next verified head or batch says so.
		return VerdictIgnore, nil, s
	}
	for i := range b.Records {
		if b.Records[i].Seq != b.After+uint64(i)+1 {
			return VerdictReset, nil, s
		}
	}
	h := b.AfterHash
	for i := range known {
		h = h.Next(b.Records[i])
	}
	switch {
	case h != s.Hash:
		return VerdictReset, nil, s
	case known == uint64(len(b.Records)):
		return VerdictIgnore, nil, s
	}
	return s.extend(b.Records[known:])
}

func (s Subscription) extend(news []Record) (Verdict, []Record, Subscription) {
	next := s
	for i := range news {
		next.Hash = next.Hash.Next(news[i])
		next.Applied = news[i].Seq
	}
	return VerdictApply, news, next
}

// Behind says what a verified head of the publisher means at s: VerdictIgnore if
// s has everything, VerdictGap if records must be pulled, VerdictReset if the
// log no longer reaches back to s, lies behind it, or is another log. The head
// must have been read after s was reached: an older one proves nothing.
func (s Subscription) Behind(epoch uint64, h Head) Verdict {
	switch {
	case epoch < s.Publisher.Epoch:
		return VerdictIgnore
	case epoch > s.Publisher.Epoch || s.State == StateReset:
		return VerdictReset
	case h.High < s.Applied || s.Applied+1 < h.Low:
		return VerdictReset
	case h.High > s.Applied:
		return VerdictGap
	case h.Hash != s.Hash:
		return VerdictReset
	}
	return VerdictIgnore
}
