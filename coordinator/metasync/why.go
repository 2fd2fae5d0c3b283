package metasync

import (
	"fmt"
	"time"
)

// Why says in words why a fact is not fresh, so that it can follow "the next
// access asks the storage:".
func (v Verdict) Why() string {
	switch {
	case v.Uncachable:
		return "an operation with an unknown outcome can still change it"
	case !v.Loaded:
		return "it was never read completely"
	case v.Valid < v.Need:
		return fmt.Sprintf("it was invalidated at log index %d, after it was last validated at %d", v.Need, v.Valid)
	case v.Age < 0:
		return "its last validation was before the present leader's term, so that its age is not known"
	}
	return fmt.Sprintf("its last validation is %s old, as old as the sync interval allows or older", v.Age.Round(time.Millisecond))
}
