package s3

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

const (
	minBackoff = 50 * time.Millisecond
	maxBackoff = 2 * time.Second
)

// resender says which requests the SDK sends again.
type resender struct {
	*retry.Standard
	creds  aws.CredentialsProvider
	signed bool // only what was refused for its signature, and had no effect
}

// retryers returns the two of a mount: once sends a second time only what was
// refused because the clock or the credentials were out of date; again also
// repeats what failed for a passing reason, retries times, out of one budget.
func retryers(retries int, creds aws.CredentialsProvider) (once, again *resender) {
	return &resender{Standard: standard(1), creds: creds, signed: true}, &resender{Standard: standard(retries), creds: creds}
}

func standard(retries int) *retry.Standard {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = retries + 1
		o.Backoff = retry.BackoffDelayerFunc(backoff)
		// An outage must not multiply the load by retries.
		o.RateLimiter = ratelimit.NewTokenRateLimit(retry.DefaultRetryRateTokens)
		refused := retry.IsErrorRetryableFunc(func(err error) aws.Ternary {
			if freshet.IsKind(err, freshet.KindPermission) {
				return aws.FalseTernary // by the endpoint policy, or a redirect
			}
			return aws.UnknownTernary
		})
		o.Retryables = append([]retry.IsErrorRetryable{refused}, o.Retryables...)
	})
}

// backoff doubles with each attempt, of which half is left to chance.
func backoff(attempt int, _ error) (time.Duration, error) {
	d := min(minBackoff<<min(attempt, 10), maxBackoff)
	return d/2 + rand.N(d/2), nil //nolint:gosec // jitter
}

// IsErrorRetryable implements aws.Retryer.
func (r *resender) IsErrorRetryable(err error) bool {
	if expired(err) {
		renew(r.creds)
		return true
	}
	if r.signed {
		return skewed(err)
	}
	return r.Standard.IsErrorRetryable(err)
}

// RetryDelay implements aws.Retryer. What is signed anew needs no pause.
func (r *resender) RetryDelay(attempt int, err error) (time.Duration, error) {
	if expired(err) || skewed(err) {
		return 0, nil
	}
	return r.Standard.RetryDelay(attempt, err)
}

// expired reports whether the storage no longer takes temporary credentials.
func expired(err error) bool {
	switch codeOf(err) {
	case "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired":
		return true
	}
	return false
}

// skewed reports whether a request was refused for a time of signing that the SDK
// has corrected by now.
func skewed(err error) bool {
	var corrected interface{ RetryableError() bool }
	return hasCode(err, "RequestTimeTooSkewed") || hasCode(err, "SignatureDoesNotMatch") && errors.As(err, &corrected) && corrected.RetryableError()
}

// reading is an API option for requests that change nothing: who repeats the
// whole call himself has them sent once.
func (s *store) reading(ctx context.Context) func(*awss3.Options) {
	if ufs.Repeated(ctx) {
		return s.sendOnce
	}
	return func(*awss3.Options) {}
}

// sendOnce is an API option for requests that change what others see: none is
// sent again after it may have been carried out.
func (s *store) sendOnce(o *awss3.Options) { o.Retryer = s.once }
