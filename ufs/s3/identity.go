package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

const (
	defaultRegion = "us-east-1"
	// secretLife is how long a value read from a secret file is used.
	secretLife = 5 * time.Minute
	// roleRenewal is how long before their end the credentials of a role are renewed.
	roleRenewal = 5 * time.Minute
	stsRetries  = 1
)

// identity returns who asks, and the region: the option's, that of the
// environment or of the SDK's configuration files, us-east-1.
func identity(c config, env ufs.Environment, client *http.Client) (aws.CredentialsProvider, string, error) {
	region := c.region
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION"} {
		if region == "" && env.Getenv != nil {
			region = env.Getenv(name)
		}
	}
	creds, err := static(c, env)
	if err != nil {
		return nil, "", err
	}
	if creds == nil {
		var configured string
		if creds, configured, err = fromSDK(c); err != nil {
			return nil, "", err
		}
		if region == "" {
			region = configured
		}
	}
	if region == "" {
		region = defaultRegion
	}
	if c.roleARN != "" {
		creds = assumed(creds, region, c, client)
	}
	return creds, region, nil
}

// assumed takes the role of the options on, as whom creds are for. STS is asked
// over the mount's own client, which dials by the endpoint policy.
func assumed(creds aws.CredentialsProvider, region string, c config, client *http.Client) aws.CredentialsProvider {
	opts := sts.Options{
		Region: region, Credentials: creds, Retryer: standard(stsRetries),
		HTTPClient: client,
	}
	if c.stsEndpoint != "" {
		opts.BaseEndpoint = aws.String(strings.TrimSuffix(c.stsEndpoint, "/"))
	}
	role := stscreds.NewAssumeRoleProvider(sts.New(opts), c.roleARN, func(o *stscreds.AssumeRoleOptions) {
		o.RoleSessionName = c.roleSession
		if c.externalID != "" {
			o.ExternalID = &c.externalID
		}
	})
	return &explained{
		CredentialsProvider: aws.NewCredentialsCache(role, func(o *aws.CredentialsCacheOptions) { o.ExpiryWindow = roleRenewal }),
		role:                c.roleARN,
	}
}

// static returns the keys that the options or the environment name, nil if they
// name none.
func static(c config, env ufs.Environment) (aws.CredentialsProvider, error) {
	refs := []string{c.accessKey, c.secretKey, c.sessionToken}
	switch {
	case c.accessKey != "":
	case c.credentials == credAnonymous:
		return aws.AnonymousCredentials{}, nil
	case c.credentials == credEnv && env.Getenv != nil && env.Getenv("AWS_ACCESS_KEY_ID") != "" && env.Getenv("AWS_SECRET_ACCESS_KEY") != "":
		refs = []string{"env:AWS_ACCESS_KEY_ID", "env:AWS_SECRET_ACCESS_KEY", ""}
		if env.Getenv("AWS_SESSION_TOKEN") != "" {
			refs[2] = "env:AWS_SESSION_TOKEN"
		}
	default:
		return nil, nil //nolint:nilnil // no provider is an answer
	}
	if _, err := resolve(refs, env); err != nil {
		return nil, err
	}
	return aws.NewCredentialsCache(aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return resolve(refs, env)
	})), nil
}

// resolve reads the keys. They expire, so that a replaced file is read again.
func resolve(refs []string, env ufs.Environment) (aws.Credentials, error) {
	var values [3]string
	for i, text := range refs {
		if text == "" {
			continue
		}
		ref, err := ufs.ParseSecretRef(text)
		if err != nil {
			return aws.Credentials{}, err
		}
		secret, err := env.Secret(ref)
		if err != nil {
			return aws.Credentials{}, err
		}
		values[i] = secret.Reveal()
	}
	return aws.Credentials{
		AccessKeyID: values[0], SecretAccessKey: values[1], SessionToken: values[2],
		Source: "freshet references", CanExpire: true, Expires: time.Now().Add(secretLife),
	}, nil
}

// fromSDK uses the SDK's chain: environment, shared files, web identity,
// container and instance roles. Of its configuration only the identity and the
// region are taken: an endpoint is given by the option alone. Where one is, the
// instance is asked for a role only on request: a storage of one's own has no use
// for it, and elsewhere than at AWS the question hangs.
func fromSDK(c config) (aws.CredentialsProvider, string, error) {
	if c.credentials == credIAM {
		return &explained{CredentialsProvider: aws.NewCredentialsCache(ec2rolecreds.New())}, "", nil
	}
	var options []func(*awsconfig.LoadOptions) error
	if c.endpoint != "" {
		options = append(options, awsconfig.WithEC2IMDSClientEnableState(imds.ClientDisabled))
	}
	cfg, err := awsconfig.LoadDefaultConfig(context.Background(), options...)
	if err != nil {
		return nil, "", &freshet.Error{Op: "open s3 mount", Kind: freshet.KindInvalid, Err: fmt.Errorf("read the AWS configuration: %w", err)}
	}
	return &explained{CredentialsProvider: cfg.Credentials}, cfg.Region, nil
}

// explained says what to do when there are no credentials. Nothing was sent to
// the storage then, and to ask again would not help, unless there were some before
// or nobody answered.
type explained struct {
	aws.CredentialsProvider
	role string // that is taken on with them, if any
	had  atomic.Bool
}

// Invalidate makes the next Retrieve ask again.
func (e *explained) Invalidate() { renew(e.CredentialsProvider) }

// Retrieve implements aws.CredentialsProvider.
func (e *explained) Retrieve(ctx context.Context) (aws.Credentials, error) {
	const op = "get credentials"
	creds, err := e.CredentialsProvider.Retrieve(ctx)
	if err == nil {
		e.had.Store(true)
		return creds, nil
	}
	if own, ok := errors.AsType[*freshet.Error](err); ok { // of the identity that takes the role on, or of the endpoint policy
		return creds, &freshet.Error{Op: op, Kind: own.Kind, Err: own}
	}
	status := statusOf(err)
	switch {
	case e.role != "" && status >= 400 && status < 500 && status != http.StatusTooManyRequests:
		return creds, freshet.Errorf(freshet.KindPermission, op, "",
			"role %s can't be assumed: check assume_role_arn, external_id and whom the role trusts: STS answered %d %s", e.role, status, codeOf(err))
	case e.role != "":
		return creds, freshet.Errorf(freshet.KindUnavailable, op, "", "STS gives no credentials for role %s: %w", e.role, innermost(err))
	case e.had.Load(), ctx.Err() != nil:
		return creds, freshet.Errorf(freshet.KindUnavailable, op, "", "the AWS credentials can't be renewed: %w", innermost(err))
	}
	return creds, freshet.Errorf(freshet.KindPermission, op, "",
		"no AWS credentials found: set option credentials=iam, or access_key and secret_key, or the usual AWS variables in the server's environment: %w", innermost(err))
}

// renew drops credentials that the storage no longer takes.
func renew(creds aws.CredentialsProvider) {
	if cache, ok := creds.(interface{ Invalidate() }); ok {
		cache.Invalidate()
	}
}
