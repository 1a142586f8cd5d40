"""Digits: a net that reads most of what it never saw, blur by hand, and a map that scikit-learn's PCA draws too."""

import importlib.util

import numpy as np
import pytest
import torch

from glassgpt.errors import UsageError
from glassgpt.evaluation import digits
from glassgpt.evaluation.digits import Answers, DigitNet, blurred, digit_map, digit_net, examples
from glassgpt.evaluation.intervals import wilson
from glassgpt.models.dense import Dense

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def net():
    return digit_net(steps=60)


def test_most_digits_that_it_never_saw_are_read_right(net):
    right = int((net.held_out.probabilities.argmax(axis=1) == net.held_out.labels).sum())
    assert net.right == wilson(right, 500) and net.right.value > 0.93
    assert net.n_training == 1297 and net.n_parameters == 64 * 32 + 32 + 32 * 10 + 10
    assert net.held_out.images.shape == (500, 8, 8) and 0 <= net.held_out.images.min() < net.held_out.images.max() == 1


def test_digits_held_out_are_none_that_it_learned_from_and_a_stranger_reads_as_many(net):
    from sklearn.linear_model import LogisticRegression

    images, labels = digits.digits()
    held_out = {image.tobytes() for image in net.held_out.images}
    rest = [i for i, image in enumerate(images) if image.tobytes() not in held_out]
    assert len(rest) >= 1297 - 5  # some may be written alike
    other = LogisticRegression(max_iter=500).fit(images[rest].reshape(-1, 64), labels[rest])
    assert net.right.value > other.score(net.held_out.images.reshape(-1, 64), net.held_out.labels) - 0.02


def test_probabilities_are_the_softmax_of_the_net(net):
    image = net.held_out.images[:3]
    with torch.no_grad():
        logits = net.net(torch.tensor(image.reshape(3, 64), dtype=torch.float32)).numpy().astype(np.float64)
    assert net.probabilities(image).dtype == np.float64
    by_hand = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(net.probabilities(image), by_hand, rtol=1e-4)
    np.testing.assert_allclose(net.probabilities(image), net.held_out.probabilities[:3], rtol=1e-12)


def test_the_answers_are_those_of_the_weights_in_float64_by_hand(net):
    layers = [
        (layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()) for layer in net.net.layers
    ]
    (first, before), (last, after) = layers
    units = np.maximum(net.held_out.images.reshape(-1, 64) @ first.T + before, 0)
    np.testing.assert_allclose(net.hidden(net.held_out.images), units, rtol=1e-12, atol=1e-13)
    powers = np.exp(units @ last.T + after)
    by_hand = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(net.held_out.probabilities, by_hand, rtol=1e-10)
    assert net.net.layers[0].weight.dtype == torch.float32  # they are left as they are


def test_the_same_seed_gives_the_same_net_and_another_holds_out_others():
    one, same, other = (digit_net((4,), steps=3, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.held_out.probabilities, same.held_out.probabilities)
    assert not np.array_equal(one.held_out.images, other.held_out.images)


def test_examples_are_the_first_of_each_digit_and_the_surest_mistakes(net):
    found, held_out = examples(net, most_misread=3), net.held_out
    assert found.typical.labels.tolist() == list(range(10))
    for digit, image in enumerate(found.typical.images):
        first = held_out.labels.tolist().index(digit)
        np.testing.assert_array_equal(image, held_out.images[first])
    wrong = held_out.probabilities[held_out.answers != held_out.labels]
    assert found.n_misread == len(wrong) == 500 - round(500 * net.right.value)
    np.testing.assert_array_equal(found.misread.probabilities.max(axis=1), np.sort(wrong.max(axis=1))[::-1][:3])
    assert (found.misread.answers != found.misread.labels).all()


def test_blur_spreads_ink_by_a_normal_density(net):
    found = blurred(net, digit=7, widest=1.0, n=3)
    image = net.held_out.images[net.held_out.labels == 7][0]
    np.testing.assert_array_equal(found.images[0], image)
    away = np.subtract.outer(np.arange(8), np.arange(-12, 20))  # as far as the density reaches
    weights = np.exp(-0.5 * away**2)
    weights = (weights / weights.sum(axis=1, keepdims=True))[:, 12:20]  # beyond the edge there is paper
    np.testing.assert_allclose(found.images[2], weights @ image @ weights.T, atol=1e-4)
    assert found.widths.tolist() == [0, 0.5, 1.0] and found.label == 7
    np.testing.assert_allclose(found.probabilities, net.probabilities(found.images))
    assert found.probabilities[0].argmax() == 7


def test_the_map_is_that_of_scikit_learn_s_principal_components(net):
    from sklearn.decomposition import PCA

    found, pca = digit_map(net), PCA(n_components=2)
    theirs = pca.fit_transform(net.hidden(net.held_out.images))
    np.testing.assert_allclose(found.explained, pca.explained_variance_ratio_, rtol=1e-6)
    for i in range(2):
        same, turned = found.places[:, i] - theirs[:, i], found.places[:, i] + theirs[:, i]
        assert min(np.abs(same).max(), np.abs(turned).max()) < 1e-6
    assert found.n_units == 32
    np.testing.assert_allclose(found.place(net.hidden(net.held_out.images[5])), found.places[5:6], atol=1e-12)
    np.testing.assert_allclose(found.place(found.mean), [0, 0], atol=1e-12)
    np.testing.assert_array_equal(found.labels, net.held_out.labels)
    np.testing.assert_array_equal(found.answers, net.held_out.answers)


def test_a_net_of_any_depth_can_be_mapped():
    images = np.random.default_rng(0).random((20, 8, 8))
    deep = Dense([64, 6, 5, 10], "relu")
    net = DigitNet(deep, Answers(images, np.zeros(20, dtype=int), np.full((20, 10), 0.1)), wilson(2, 20), 10)
    assert net.hidden(images).shape == (20, 5) and digit_map(net).n_units == 5


def test_what_cannot_be_is_refused(net):
    with pytest.raises(UsageError, match="a hidden layer or more"):
        digit_net(())
    with pytest.raises(UsageError, match="from 10 to 1787 digits"):
        digit_net(held_out=1795)
    with pytest.raises(UsageError, match="choose a digit among those held out"):
        blurred(net, digit=12)
    with pytest.raises(UsageError, match="a width above 0"):
        blurred(net, widest=0.0)


def test_without_scikit_learn_a_person_is_told_how_to_install_it(monkeypatch):
    monkeypatch.setattr(digits, "find_spec", lambda name: None if name == "sklearn" else importlib.util.find_spec(name))
    with pytest.raises(UsageError, match=r"pip install 'glassgpt\[classify\]'"):
        digit_net()
