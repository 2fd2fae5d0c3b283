package cli

import (
	"context"
	"sync"

	"github.com/spf13/cobra"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// stateHashes is the hashes of all members at one index.
type stateHashes struct {
	Equal   bool          `json:"equal"`
	Members []memberState `json:"members"`
}

type memberState struct {
	Member string `json:"member"`
	Index  uint64 `json:"index,string"`
	Format uint32 `json:"format"`
	Hash   string `json:"hash"`
}

func (a *app) clusterStateHash() *cobra.Command {
	return &cobra.Command{
		Use: "state-hash", Short: "Compare the state of all coordinators at one index; exits with 7 if they differ", Args: cobra.NoArgs,
		Long: "Every coordinator reads its whole state once, at the same index of the log and beside its work: about a\n" +
			"second for a million entries. Members of one format whose hashes differ have made different states of\n" +
			"the same changes: wipe the data of the one that differs from the others, and let it join again.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withUnbounded(cmd, func(ctx context.Context, s *session) error {
				r, err := hashMembers(ctx, s)
				if err != nil {
					return err
				}
				err = a.printValue(r, func(t *table) {
					t.row("MEMBER", "INDEX", "FORMAT", "STATE HASH")
					for _, m := range r.Members {
						t.row(m.Member, m.Index, m.Format, m.Hash)
					}
				})
				if err == nil && !r.Equal {
					err = &exitError{code: freshet.ExitUnhealthy}
				}
				return err
			})
		},
	}
}

// hashTries is how often the members are asked for an index that all can answer for.
// hashAhead is how far ahead of the one that has applied most it is, growing with
// each try: the members hear of it while they apply.
const (
	hashTries = 8
	hashAhead = 32
)

// hashMembers asks all members for their hash at one index.
func hashMembers(ctx context.Context, s *session) (*stateHashes, error) {
	c, err := s.cluster.GetCluster(ctx, &freshetv1.GetClusterRequest{})
	if err != nil {
		return nil, err
	}
	if c.GetLeader() == "" { // a member that waits for the others knows itself alone
		return nil, freshet.Errorf(freshet.KindUnavailable, "compare states", "", "the cluster has no leader at the moment, or is not founded yet; try again")
	}
	index := c.GetAppliedIndex()
	for try := range hashTries {
		members, err := hashAt(ctx, s, c.GetMembers(), index)
		if err != nil {
			return nil, err
		}
		r := &stateHashes{Equal: true, Members: members}
		same, last := true, uint64(0)
		for _, m := range members {
			same = same && m.Index == members[0].Index
			r.Equal = r.Equal && m.Hash == members[0].Hash
			last = max(last, m.Index)
		}
		if same {
			return r, nil
		}
		if index = last; try%2 == 0 { // else writes have ended, and the index ahead is never reached
			index += hashAhead << try
		}
	}
	return nil, freshet.Errorf(freshet.KindUnavailable, "compare states", "", "the members did not come to one index in %d tries; one of them lags behind: see 'freshet cluster status'", hashTries)
}

func hashAt(ctx context.Context, s *session, members []*freshetv1.Member, index uint64) ([]memberState, error) {
	out := make([]memberState, len(members))
	errs := make([]error, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() {
			conn, err := s.members.Get(m.GetGrpc())
			if err == nil {
				var r *freshetv1.GetStateHashResponse
				if r, err = freshetv1.NewStateServiceClient(conn).GetStateHash(ctx, &freshetv1.GetStateHashRequest{Index: index}); err == nil {
					out[i] = memberState{Member: r.GetMember(), Index: r.GetAppliedIndex(), Format: r.GetFormat(), Hash: r.GetHash()}
				}
			}
			errs[i] = err
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}
