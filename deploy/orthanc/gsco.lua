-- Sends every series to gsco once nothing has been added to it for StableAge seconds.
-- What gsco wrote itself is left out: gsco would ignore it too, but need not see it.
-- A series that comes while gsco is away ends as a failed job of Orthanc's, to be sent again by
-- POST /jobs/ID/resubmit. Where nothing may be left to a person, use follow.py instead.

local NO_IMAGES = {SR = true, KO = true, PR = true, SEG = true, DOC = true, REG = true,
                   RTSTRUCT = true, RTPLAN = true, RTDOSE = true}

function OnStableSeries(seriesId, tags, metadata)
  if tags['Manufacturer'] == 'GSCo' or NO_IMAGES[tags['Modality']] then
    return
  end
  RestApiPost('/modalities/gsco/store', DumpJson({
    Resources = {seriesId}, Asynchronous = true, Permissive = true}, true))
end
