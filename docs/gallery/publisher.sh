# A publisher locks a model, signs it, edits its page, checks it before the upload, and gets the weights back.

# The bundled model, as a folder
specdef fetch smollm2-135m model

# Lock it, with the lock written into the hub's model card; is it the same function?
specdef lock model model-locked --card
specdef verify model-locked --original model

# Sign it with a key of your own: keep signer.pem, publish signer.pub elsewhere than the model
openssl ecparam -name prime256v1 -genkey -noout -out signer.pem
openssl pkey -in signer.pem -pubout -out signer.pub
specdef sign model-locked --key signer.pem

# Prose may be edited and added: the lock holds, the signature is of before
echo 'Ask us before you fine-tune it.' >> model-locked/README.md
echo 'Apache License 2.0' > model-locked/LICENSE
specdef verify model-locked
specdef publish model-locked --check --public-key signer.pub || test $? -eq 1

# Sign again, and it is fit to be published; `specdef publish model-locked --repo ORG/NAME` would upload it
specdef sign model-locked --key signer.pem --replace
specdef publish model-locked --check --public-key signer.pub

# The way back: the original weights, to the byte, with the page and the licence of today
specdef unlock model-locked restored --weights-only
cmp model/model.safetensors restored/model.safetensors
cmp model-locked/LICENSE restored/LICENSE
