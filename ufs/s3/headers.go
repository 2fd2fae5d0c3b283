package s3

import (
	"context"
	"crypto/md5" //nolint:gosec // the protocol wants it beside the key
	"encoding/base64"
	"errors"
	"maps"
	"net/http"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/freshet-io/freshet/ufs"
)

// Values of the option sse.
const (
	sseS3   = "AES256"
	sseKMS  = "aws:kms"
	sseDSSE = "aws:kms:dsse"
)

// sseCKeySize is the length in bytes of a key of one's own.
const sseCKeySize = 32

// headers are what the options of the mount add to requests, by the name of the
// operation; those of "" go with each. They are set before signing.
type headers map[string]http.Header

// newHeaders makes the headers of c; key is the customer's key, if it has one.
func newHeaders(c config, key []byte) headers {
	h := headers{}
	// What makes an object says how it is kept.
	for _, op := range []string{"PutObject", "CreateMultipartUpload", "CopyObject"} {
		h.set(op, "X-Amz-Server-Side-Encryption", c.sse)
		h.set(op, "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id", c.sseKMSKeyID)
		h.set(op, "X-Amz-Storage-Class", c.storageClass)
	}
	if c.requesterPays {
		h.set("", "X-Amz-Request-Payer", "requester")
	}
	if key == nil {
		return h
	}
	sum := md5.Sum(key) //nolint:gosec // see the import
	text, check := base64.StdEncoding.EncodeToString(key), base64.StdEncoding.EncodeToString(sum[:])
	for _, op := range []string{"PutObject", "GetObject", "HeadObject", "CopyObject", "CreateMultipartUpload", "UploadPart", "UploadPartCopy", "CompleteMultipartUpload"} {
		h.customerKey(op, "X-Amz-", text, check)
	}
	for _, op := range []string{"CopyObject", "UploadPartCopy"} {
		h.customerKey(op, "X-Amz-Copy-Source-", text, check)
	}
	return h
}

func (h headers) customerKey(op, prefix, key, sum string) {
	h.set(op, prefix+"Server-Side-Encryption-Customer-Algorithm", sseS3)
	h.set(op, prefix+"Server-Side-Encryption-Customer-Key", key)
	h.set(op, prefix+"Server-Side-Encryption-Customer-Key-Md5", sum)
}

func (h headers) set(op, name, value string) {
	if value == "" {
		return
	}
	if h[op] == nil {
		h[op] = http.Header{}
	}
	h[op].Set(name, value)
}

// add is an API option of the SDK.
func (h headers) add(stack *middleware.Stack) error {
	return stack.Build.Add(middleware.BuildMiddlewareFunc("FreshetHeaders", func(
		ctx context.Context, in middleware.BuildInput, next middleware.BuildHandler,
	) (middleware.BuildOutput, middleware.Metadata, error) {
		if req, ok := in.Request.(*smithyhttp.Request); ok {
			for _, op := range []string{"", awsmiddleware.GetOperationName(ctx)} {
				maps.Copy(req.Header, h[op])
			}
		}
		return next.HandleBuild(ctx, in)
	}), middleware.After)
}

// customerKey reads the key that the option sse_c_key refers to: 32 bytes in
// base64. An empty text is no key.
func customerKey(text string, env ufs.Environment) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	ref, err := ufs.ParseSecretRef(text)
	if err != nil {
		return nil, err
	}
	secret, err := env.Secret(ref)
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(secret.Reveal())
	if err != nil || len(key) != sseCKeySize {
		return nil, errors.New("option 'sse_c_key': the reference does not lead to 32 bytes in base64: make one with `head -c32 /dev/urandom | base64`")
	}
	return key, nil
}
