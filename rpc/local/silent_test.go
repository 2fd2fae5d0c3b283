package local_test

import (
	"testing"

	"github.com/freshet-io/freshet/rpc/local"
)

// TestNoAnswerIsMissed: one that nobody takes would keep its descriptor open.
func TestNoAnswerIsMissed(t *testing.T) {
	if local.AnswersCanBeMissed() {
		t.Error("who gives up while its answer comes leaves a descriptor behind")
	}
}
