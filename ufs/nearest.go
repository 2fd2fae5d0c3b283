package ufs

// DidYouMean returns "; did you mean X?" with the known name nearest to name, or
// "" if none is near.
func DidYouMean(name string, known []string) string { return didYouMean(name, known) }
